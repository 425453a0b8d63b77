/* A layer between the server and its disk, preloaded (LD_PRELOAD) by the tests of power cuts and of failing disks.
 *
 * What it does to files of the log (tidings.db, tidings.db-wal, tidings.head; not the -shm, which is shared memory and need
 * not survive) that are opened in SHIM_DIR:
 *   SHIM_LOG=FILE                  writes every change down, with its bytes, in the order in which they were made; beside
 *                                  SHIM_FAIL only the failures
 *   SHIM_FAIL=write|sync:N:ERRNO:once|on
 *                                  lets the N-th write (or fsync) fail, that one or all from then on; KILL for ERRNO lets
 *                                  it be done and kills the server before it hears of that, HANG never comes back
 *
 * A record of the log: five little-endian 64-bit numbers (kind, file, offset, length of what follows, length of the file for
 * a truncation), then the bytes. Each is in the log before the call returns to the server, so whatever an answer rests on
 * stands in the log before the answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4, FAULT = 5 };
enum { FDS = 4096, FILES = 8 };

static const char *const names[FILES] = {"", "tidings.db", "tidings.db-wal", "tidings.head", "tidings.db-journal"};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char files[FDS];
static char directory[PATH_MAX];
static int log_fd = -1;
static enum kind fail_kind;
static long fail_at = -1, seen;
static int fail_errno, fail_on, fail_kills, fail_hangs;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    const char *dir = getenv("SHIM_DIR"), *log = getenv("SHIM_LOG"), *fail = getenv("SHIM_FAIL");
    if (!dir || !realpath(dir, directory)) return;
    if (log) log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char op[8], when[8], code[16];
    if (fail && sscanf(fail, "%7[^:]:%ld:%15[^:]:%7s", op, &fail_at, code, when) == 4) {
        fail_kind = strcmp(op, "sync") ? WRITE : SYNC;
        fail_errno = strcmp(code, "ENOSPC") ? EIO : ENOSPC;
        fail_on = !strcmp(when, "on");
        fail_kills = !strcmp(code, "KILL");
        fail_hangs = !strcmp(code, "HANG");
    }
}

/* The number of a file of the log, 0 for every other. */
static int number(const char *path) {
    char parent[PATH_MAX], real[PATH_MAX];
    const char *name = strrchr(path, '/');
    if (!directory[0] || !name || (size_t)(name - path) >= sizeof parent) return 0;
    memcpy(parent, path, name - path);
    parent[name - path] = 0;
    for (int i = 1; i < FILES && names[i]; i++)
        if (!strcmp(name + 1, names[i])) return realpath(parent, real) && !strcmp(real, directory) ? i : 0;
    return 0;
}

static int file_of(int fd) { return fd >= 0 && fd < FDS ? files[fd] : 0; }

static void record(enum kind kind, int file, uint64_t offset, const void *bytes, uint64_t length, uint64_t size) {
    if (log_fd < 0 || (fail_kind && kind != FAULT)) return;
    uint64_t head[5] = {kind, file, offset, length, size};
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    ssize_t whole = sizeof head + length;
    if (real_writev(log_fd, parts, length ? 2 : 1) != whole) abort();
}

/* Whether this call is to fail (1; sets errno), or to be the last (-1). Called under the lock. */
static int fails(enum kind kind, int file) {
    /* The head file is written beside the log and no promise rests on it. */
    if (fail_kind != kind || !strcmp(names[file], "tidings.head")) return 0;
    seen++;
    if (seen != fail_at && !(fail_on && seen > fail_at)) return 0;
    record(FAULT, file, seen, 0, 0, 0);
    while (fail_hangs) pause(); /* Whoever wants the disk now waits for the lock. */
    errno = fail_errno;
    return fail_kills ? -1 : 1;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FDS) files[fd] = number(path);
    return fd;
}

static int do_open(const char *path, int flags, mode_t mode) { return opened(real_open(path, flags, mode), path); }

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return do_open(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return do_open(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return opened(real_openat(at, path, flags, mode), path);
}

int close(int fd) {
    if (fd >= 0 && fd < FDS) files[fd] = 0;
    return real_close(fd);
}

static ssize_t do_write(int fd, int file, const void *bytes, size_t length, off_t offset, int moves) {
    pthread_mutex_lock(&lock);
    ssize_t written = -1;
    int fate = fails(WRITE, file);
    if (fate < 1) {
        if (moves) offset = lseek(fd, 0, SEEK_CUR);
        written = moves ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
        int told = errno;
        if (fate) raise(SIGKILL);
        if (written > 0) record(WRITE, file, offset, bytes, written, 0);
        errno = told;
    }
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    int file = file_of(fd);
    return file ? do_write(fd, file, bytes, length, 0, 1) : real_write(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (file_of(fd)) abort(); /* Nothing writes the log so; were it to, this would have to learn it. */
    return real_writev(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    int file = file_of(fd);
    return file ? do_write(fd, file, bytes, length, offset, 0) : real_pwrite(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite(fd, bytes, length, offset); }

int ftruncate(int fd, off_t size) {
    int file = file_of(fd);
    if (!file) return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    int done = real_ftruncate(fd, size);
    int told = errno;
    if (!done) record(TRUNCATE, file, 0, 0, 0, size);
    errno = told;
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int do_sync(int fd, int (*real)(int)) {
    int file = file_of(fd);
    if (!file) return real(fd);
    pthread_mutex_lock(&lock);
    int done = -1, fate = fails(SYNC, file);
    if (fate < 1) {
        done = real(fd);
        int told = errno;
        if (fate) raise(SIGKILL);
        if (!done) record(SYNC, file, 0, 0, 0, 0);
        errno = told;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) { return do_sync(fd, real_fsync); }

int fdatasync(int fd) { return do_sync(fd, real_fdatasync); }

int unlink(const char *path) {
    int file = number(path);
    if (!file) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int done = real_unlink(path);
    int told = errno;
    if (!done) record(UNLINK, file, 0, 0, 0, 0);
    errno = told;
    pthread_mutex_unlock(&lock);
    return done;
}
