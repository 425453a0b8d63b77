/* A layer between the server and its disk, preloaded (LD_PRELOAD) by the tests of power cuts and of failing disks.
 *
 * What it does to files of the log (tidings.db, tidings.db-wal, tidings.head) that are opened in SHIM_DIR:
 *   SHIM_LOG=FILE                  writes every change down, with its bytes, in the order in which they were made; beside
 *                                  SHIM_FAIL only the failures
 *   SHIM_FAIL=WHAT:N:ERRNO:once|on
 *                                  lets the N-th WHAT fail, that one or all from then on; KILL for ERRNO lets
 *                                  it be done and kills the server before it hears of that, HANG never comes back
 *   SHIM_WHEN=FILE                 only while this file is there
 *
 * WHAT is, of the database and its log of writes, write, sync, read, stat (how large the database is) or lock (of the database or
 * its shared memory); a write of tidings.head (head); or opening tidings.ballast (ballast). EDQUOT stands for a quota on a disk
 * that reserves nothing ahead: what is written to the ballast fails too, as long as writes do.
 *
 * A record of the log: five little-endian 64-bit numbers (kind, file, offset, length of what follows, length of the file for
 * a truncation), then the bytes. Each is in the log before the call returns to the server, so whatever an answer rests on
 * stands in the log before the answer. The -shm is not in it, which is shared memory and need not survive, nor the ballast,
 * whose bytes say nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NOTHING, WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4, FAULT = 5, READ, STAT, LOCK, WRITE_HEAD, OPEN_BALLAST };
enum { FDS = 4096, DB = 1, WAL = 2, HEAD = 3, JOURNAL = 4, BALLAST = 5, SHM = 6, FILES = 7 };

static const char *const names[FILES] = {
    "", "tidings.db", "tidings.db-wal", "tidings.head", "tidings.db-journal", "tidings.ballast", "tidings.db-shm"};
static const struct { const char *name; enum kind kind; } whats[] = {
    {"write", WRITE}, {"sync", SYNC}, {"read", READ}, {"stat", STAT}, {"lock", LOCK}, {"head", WRITE_HEAD}, {"ballast", OPEN_BALLAST}};
static const struct { const char *name; int number; } errors[] = {
    {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ESTALE", ESTALE}, {"ENOLCK", ENOLCK}, {"KILL", EIO}, {"HANG", EIO}};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char files[FDS];
static char directory[PATH_MAX];
static int log_fd = -1;
static enum kind fail_kind;
static const char *fail_when;
static long fail_at = -1, seen;
static int fail_errno, fail_on, fail_kills, fail_hangs;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static int (*real_fstat)(int, struct stat *);
static int (*real_fcntl)(int, int, ...);
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

/* A disk that reserves nothing ahead. The server asks for it without libc, so that the kernel is to refuse it. */
static void reserve_nothing(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
}

/* What is to fail, from a text that a test has written. */
static void fail_as(const char *text) {
    char what[8], when[8], code[16];
    if (sscanf(text, "%7[^:]:%ld:%15[^:]:%7s", what, &fail_at, code, when) != 4) abort();
    for (size_t i = 0; i < sizeof whats / sizeof *whats; i++)
        if (!strcmp(what, whats[i].name)) fail_kind = whats[i].kind;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strcmp(code, errors[i].name)) fail_errno = errors[i].number;
    if (!fail_kind || !fail_errno) abort();
    fail_when = getenv("SHIM_WHEN");
    fail_on = !strcmp(when, "on");
    fail_kills = !strcmp(code, "KILL");
    fail_hangs = !strcmp(code, "HANG");
    if (fail_errno == EDQUOT) reserve_nothing();
}

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_fstat = dlsym(RTLD_NEXT, "fstat64");
    real_fcntl = dlsym(RTLD_NEXT, "fcntl64");
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
    if (fail) fail_as(fail);
}

/* The number of a file of the log, 0 for every other. */
static int number(const char *path) {
    char parent[PATH_MAX], real[PATH_MAX];
    const char *name = strrchr(path, '/');
    if (!directory[0] || !name || (size_t)(name - path) >= sizeof parent) return 0;
    memcpy(parent, path, name - path);
    parent[name - path] = 0;
    for (int i = 1; i < FILES; i++)
        if (!strcmp(name + 1, names[i])) return realpath(parent, real) && !strcmp(real, directory) ? i : 0;
    return 0;
}

static int file_of(int fd) { return fd >= 0 && fd < FDS ? files[fd] : 0; }

static void record(enum kind kind, int file, uint64_t offset, const void *bytes, uint64_t length, uint64_t size) {
    if (log_fd < 0 || (kind != FAULT && (fail_kind || file == BALLAST || file == SHM))) return;
    uint64_t head[5] = {kind, file, offset, length, size};
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    ssize_t whole = sizeof head + length;
    if (real_writev(log_fd, parts, length ? 2 : 1) != whole) abort();
}

/* Whether this call is to fail (1; sets errno), or to be the last (-1). Called under the lock. */
static int fails(enum kind kind, int file) {
    if (fail_kind != kind) return 0;
    if (fail_when && access(fail_when, F_OK)) return 0;
    seen++;
    if (seen != fail_at && !(fail_on && seen > fail_at)) return 0;
    record(FAULT, file, seen, 0, 0, 0);
    while (fail_hangs) pause(); /* Whoever wants the disk now waits for the lock. */
    errno = fail_errno;
    return fail_kills ? -1 : 1;
}

/* The same of a write, to whichever file. The shared memory is none of the disk's. */
static int write_fails(int file) {
    if (file == SHM) return 0;
    if (file == HEAD) return fails(WRITE_HEAD, file);
    if (file != BALLAST) return fails(WRITE, file);
    if (fail_errno != EDQUOT || !fail_on || seen < fail_at) return 0;
    errno = EDQUOT;
    return 1;
}

/* The same of what fails and changes nothing, for files that it is counted for. Takes the lock. */
static int asking_fails(enum kind kind, int file) {
    if (fail_kind != kind) return 0;
    pthread_mutex_lock(&lock);
    int fate = fails(kind, file);
    pthread_mutex_unlock(&lock);
    return fate;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FDS) files[fd] = number(path);
    return fd;
}

static int do_open(const char *path, int flags, mode_t mode) {
    if (fail_kind == OPEN_BALLAST && number(path) == BALLAST && asking_fails(OPEN_BALLAST, BALLAST)) return -1;
    return opened(real_open(path, flags, mode), path);
}

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
    int fate = write_fails(file);
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

ssize_t read(int fd, void *bytes, size_t length) {
    int file = file_of(fd);
    return (file == DB || file == WAL) && asking_fails(READ, file) ? -1 : real_read(fd, bytes, length);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) {
    int file = file_of(fd);
    return (file == DB || file == WAL) && asking_fails(READ, file) ? -1 : real_pread(fd, bytes, length, offset);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) { return pread(fd, bytes, length, offset); }

int fstat(int fd, struct stat *found) {
    int file = file_of(fd);
    return file == DB && asking_fails(STAT, file) ? -1 : real_fstat(fd, found);
}

int fstat64(int fd, struct stat64 *found) { return fstat(fd, (struct stat *)found); }

int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int file = file_of(fd);
    if (command == F_SETLK && (file == DB || file == SHM) && ((struct flock *)argument)->l_type != F_UNLCK &&
        asking_fails(LOCK, file))
        return -1;
    return real_fcntl(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl64(fd, command, argument);
}

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
