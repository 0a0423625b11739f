/* A library to be preloaded: the Nth call of a kind on files below a folder fails, once or from then on.

   gcc -shared -fPIC -o refuse.so refuse.c -ldl; LD_PRELOAD=./refuse.so; then `arm` is called (system_calls.py). */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char kind_armed[32], below[PATH_MAX];
static int left = -1, code, for_ever, made;
static size_t length;

/* kind: as in the wrappers below. nth: from 1. always: fail from then on. folder: with its path resolved. */
void arm(const char *kind, int nth, int error, int always, const char *folder) {
    snprintf(kind_armed, sizeof kind_armed, "%s", kind);
    snprintf(below, sizeof below, "%s", folder);
    length = strlen(below);
    code = error, for_ever = always, made = 0, left = nth;
}

/* The same from a variable, for a process of its own: KIND:NTH:ERRNO:ALWAYS:FOLDER. */
__attribute__((constructor)) static void arm_by_variable(void) {
    const char *asked = getenv("BLENDRUN_REFUSE_ARM");
    char kind[32];
    int nth, error, always, at = 0;
    if (asked && sscanf(asked, "%31[a-z]:%d:%d:%d:%n", kind, &nth, &error, &always, &at) == 4 && at)
        arm(kind, nth, error, always, asked + at);
}

/* Calls that have failed so far. */
int refused(void) { return made; }

static int fails(const char *kind, const char *path) {
    if (left < 0 || strcmp(kind, kind_armed) != 0 || strncmp(path, below, length) != 0) return 0;
    if (left > 1) { left--; return 0; }
    if (!for_ever && made) return 0;
    made++;
    errno = code;
    return 1;
}

static int fails_at(const char *kind, int descriptor) {
    char link[64], path[PATH_MAX];
    if (left < 0 || strcmp(kind, kind_armed) != 0) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = before;
    if (size < 0) return 0;
    path[size] = 0;
    return fails(kind, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define BY_PATH(type, name, kind, path, parameters, arguments) \
    type name parameters { REAL(name); return fails(kind, path) ? -1 : real arguments; }
#define BY_DESCRIPTOR(type, name, kind, parameters, arguments) \
    type name parameters { REAL(name); return fails_at(kind, fd) ? -1 : real arguments; }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        REAL(name); return fails("open", path) ? -1 : real(path, flags, mode); }
#define OPEN_AT(name) \
    int name(int fd, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        REAL(name); return fails("open", path) ? -1 : real(fd, path, flags, mode); }

OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)
BY_DESCRIPTOR(ssize_t, write, "write", (int fd, const void *data, size_t size), (fd, data, size))
BY_DESCRIPTOR(ssize_t, read, "read", (int fd, void *data, size_t size), (fd, data, size))
BY_DESCRIPTOR(ssize_t, pread, "read", (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
BY_DESCRIPTOR(ssize_t, pread64, "read", (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
BY_DESCRIPTOR(int, fsync, "fsync", (int fd), (fd))
BY_DESCRIPTOR(int, fdatasync, "fsync", (int fd), (fd))
BY_DESCRIPTOR(int, ftruncate, "ftruncate", (int fd, off_t size), (fd, size))
BY_DESCRIPTOR(int, ftruncate64, "ftruncate", (int fd, off64_t size), (fd, size))
BY_DESCRIPTOR(int, fchmod, "chmod", (int fd, mode_t mode), (fd, mode))
BY_DESCRIPTOR(int, fstat, "stat", (int fd, struct stat *found), (fd, found))
BY_DESCRIPTOR(int, fstat64, "stat", (int fd, struct stat64 *found), (fd, found))
BY_DESCRIPTOR(off_t, lseek, "seek", (int fd, off_t at, int from), (fd, at, from))
BY_DESCRIPTOR(off64_t, lseek64, "seek", (int fd, off64_t at, int from), (fd, at, from))
BY_DESCRIPTOR(int, flock, "flock", (int fd, int what), (fd, what))
BY_PATH(int, stat, "stat", path, (const char *path, struct stat *found), (path, found))
BY_PATH(int, stat64, "stat", path, (const char *path, struct stat64 *found), (path, found))
BY_PATH(int, lstat, "stat", path, (const char *path, struct stat *found), (path, found))
BY_PATH(int, lstat64, "stat", path, (const char *path, struct stat64 *found), (path, found))
BY_PATH(int, chmod, "chmod", path, (const char *path, mode_t mode), (path, mode))
BY_PATH(int, mkdir, "mkdir", path, (const char *path, mode_t mode), (path, mode))
BY_PATH(int, unlink, "unlink", path, (const char *path), (path))
BY_PATH(int, rmdir, "unlink", path, (const char *path), (path))
BY_PATH(int, rename, "rename", to, (const char *from, const char *to), (from, to))
BY_PATH(ssize_t, readlink, "readlink", path, (const char *path, char *into, size_t size), (path, into, size))
BY_PATH(int, truncate, "ftruncate", path, (const char *path, off_t size), (path, size))
BY_DESCRIPTOR(int, unlinkat, "unlink", (int fd, const char *path, int flags), (fd, path, flags))
BY_DESCRIPTOR(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
BY_DESCRIPTOR(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))

DIR *opendir(const char *path) {
    REAL(opendir);
    return fails("list", path) ? NULL : real(path);
}

DIR *fdopendir(int fd) {
    REAL(fdopendir);
    return fails_at("list", fd) ? NULL : real(fd);
}

int close(int fd) {
    REAL(close);
    /* As the kernel does: the descriptor is gone, whatever the write behind it came to. */
    if (!fails_at("close", fd)) return real(fd);
    int error = errno;
    real(fd);
    errno = error;
    return -1;
}
