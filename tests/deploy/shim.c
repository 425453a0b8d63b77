/* A disk that hangs: while /run/tidings-test-hang exists, whoever flushes a file waits. A drop-in preloads it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

static void wait_while_hanging(void) {
  while (access("/run/tidings-test-hang", F_OK) == 0) usleep(10000);
}

int fsync(int file) {
  wait_while_hanging();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int fdatasync(int file) {
  wait_while_hanging();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
