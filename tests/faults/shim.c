/* Makes faults: counts the calls of one process that change a file system, and at one of them kills the
 * process, stops it, or lets the call fail. Loaded with LD_PRELOAD; does nothing until arm() is called, and
 * only in the process that called it, so programs that it starts go untouched: but for the one that talks to a
 * remote, which is given AWS_FAULTS as it is given credentials, and nobody else is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT, KILL, ONCE, LASTING, STOP };

struct seen {
    int calls; /* that change something, so far */
    int fired; /* how often the fault happened */
    char name[32]; /* the function at which it happened first */
};

static struct seen *seen; /* shared with the parent, which reads it after the death of the child */
static pid_t armed;
static int mode, at, code, counted;

/* AWS_FAULTS is "mode,at,code,file": the file has room for what is seen. */
__attribute__((constructor)) static void prepare(void)
{
    const char *wanted = getenv("AWS_FAULTS");
    char file[4096];
    int fd = -1;
    if (wanted && sscanf(wanted, "%d,%d,%d,%4095s", &mode, &at, &code, file) == 4) {
        fd = open(file, O_RDWR | O_CLOEXEC);
        armed = getpid();
    }
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
}

void arm(int new_mode, int new_at, int new_code)
{
    memset(seen, 0, sizeof *seen);
    mode = new_mode;
    at = new_at;
    code = new_code;
    counted = 0;
    armed = getpid();
}

int calls(void) { return seen->calls; }
int fired(void) { return seen->fired; }
const char *name(void) { return seen->name; }

/* Returns whether the call must fail. A full disk (LASTING) fails only what needs space. */
static int hit(const char *function, int needs_space)
{
    if (!armed || armed != getpid())
        return 0;
    /* counted for itself: another child may have begun anew what is shared */
    int number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    seen->calls = number;
    if (mode == COUNT || number < at || (number > at && mode != LASTING))
        return 0;
    if (mode == LASTING && !needs_space)
        return 0;
    if (!seen->fired++)
        snprintf(seen->name, sizeof seen->name, "%s", function);
    if (mode == KILL || mode == STOP) {
        kill(armed, mode == KILL ? SIGKILL : SIGSTOP);
        return 0; /* stopped, and going on now */
    }
    errno = code;
    return 1;
}

static int is_file(int fd)
{
    struct stat st;
    int before = errno;
    /* what is said to the user is no part of the world */
    int answer = fd > 2 && armed == getpid() && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    errno = before;
    return answer;
}

#define REAL(type, function, parameters) \
    static type(*real) parameters; \
    if (!real) \
        real = (type(*) parameters)dlsym(RTLD_NEXT, #function)

#define CALL(type, function, parameters, arguments, needs_space) \
    type function parameters \
    { \
        REAL(type, function, parameters); \
        return hit(#function, needs_space) ? -1 : real arguments; \
    }

#define ON_FILE(type, function, parameters, arguments, needs_space) \
    type function parameters \
    { \
        REAL(type, function, parameters); \
        return is_file(fd) && hit(#function, needs_space) ? -1 : real arguments; \
    }

CALL(int, rename, (const char *a, const char *b), (a, b), 0)
CALL(int, renameat, (int p, const char *a, int q, const char *b), (p, a, q, b), 0)
CALL(int, renameat2, (int p, const char *a, int q, const char *b, unsigned f), (p, a, q, b, f), 0)
CALL(int, link, (const char *a, const char *b), (a, b), 1)
CALL(int, linkat, (int p, const char *a, int q, const char *b, int f), (p, a, q, b, f), 1)
CALL(int, symlink, (const char *a, const char *b), (a, b), 1)
CALL(int, symlinkat, (const char *a, int q, const char *b), (a, q, b), 1)
CALL(int, unlink, (const char *a), (a), 0)
CALL(int, unlinkat, (int p, const char *a, int f), (p, a, f), 0)
CALL(int, rmdir, (const char *a), (a), 0)
CALL(int, mkdir, (const char *a, mode_t m), (a, m), 1)
CALL(int, mkdirat, (int p, const char *a, mode_t m), (p, a, m), 1)
CALL(int, chmod, (const char *a, mode_t m), (a, m), 0)
CALL(int, fchmod, (int fd, mode_t m), (fd, m), 0)
CALL(int, fchmodat, (int p, const char *a, mode_t m, int f), (p, a, m, f), 0)
CALL(int, utimensat, (int p, const char *a, const struct timespec t[2], int f), (p, a, t, f), 0)
CALL(int, futimens, (int fd, const struct timespec t[2]), (fd, t), 0)
CALL(int, fsync, (int fd), (fd), 1)
CALL(int, fdatasync, (int fd), (fd), 1)
CALL(int, syncfs, (int fd), (fd), 1)
ON_FILE(int, ftruncate, (int fd, off_t n), (fd, n), 0)
ON_FILE(int, ftruncate64, (int fd, off64_t n), (fd, n), 0)
ON_FILE(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), 1)
ON_FILE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), 1)
ON_FILE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), 1)

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned f)
{
    REAL(ssize_t, copy_file_range, (int, off64_t *, int, off64_t *, size_t, unsigned));
    return hit("copy_file_range", 1) ? -1 : real(from, a, fd, b, n, f);
}

/* Opening counts where it may make a file. */
#define OPEN(function, parameters, ...) \
    int function parameters \
    { \
        REAL(int, function, parameters); \
        mode_t m = 0; \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list more; \
            va_start(more, flags); \
            m = va_arg(more, mode_t); \
            va_end(more); \
            if (hit(#function, 1)) \
                return -1; \
        } \
        return real(__VA_ARGS__, flags, m); \
    }

OPEN(open, (const char *a, int flags, ...), a)
OPEN(open64, (const char *a, int flags, ...), a)
OPEN(openat, (int p, const char *a, int flags, ...), p, a)
OPEN(openat64, (int p, const char *a, int flags, ...), p, a)

/* Of all ioctls those two count that share blocks. */
int ioctl(int fd, unsigned long request, ...)
{
    REAL(int, ioctl, (int, unsigned long, ...));
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if ((request == 0x40049409 || request == 0xC0189436) && hit("ioctl", 1))
        return -1;
    return real(fd, request, argument);
}
