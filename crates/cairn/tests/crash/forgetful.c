/*
 * A disk that forgets what was not synced, under a real process (LD_PRELOAD; compiled with `cc` by the tests).
 *
 * kill -9 keeps the page cache, so a program that never syncs passes every kill test. This layer writes down, before each
 * change below one folder, what is needed to undo it, and which file or directory each fsync covered. After the kill the
 * test (forgetful.rs) undoes what no fsync had covered: what power loss may take. A new name is covered by an fsync of
 * its directory, bytes and length by one of their file. It also makes the disk full, stalled, or failing while a file of
 * that name exists beside the journal, and can kill the process at the nth operation of a kind.
 *
 * FORGETFUL_BELOW    the folder, absolute and without symbolic links
 * FORGETFUL_JOURNAL  a folder on the same file system, with `journal` and `grave/` (what was unlinked); may also hold
 *                    `full` (no new blocks: ENOSPC), `stall` (syncs wait), `broken` (syncs fail: EIO)
 * FORGETFUL_KILL     <op>:<n>[:<part of a path>]; ops: write-before write-torn write-after sync-before sync-after
 *                    rename-before rename-after link-before link-after create-after any
 * FORGETFUL_SYNC_MS  each sync takes at least this long
 * FORGETFUL_LIES     a part of a path: syncs of such files are believed and do nothing, which the tests must catch
 *
 * Journal: entries of a fixed head (struct head, as it lies in memory) and `path_bytes` + `other_bytes` + `data_bytes` bytes.
 * Must never change what the process sees of its calls' results, apart from the faults above.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <limits.h>
#include <sys/mman.h>

#define FDS_MAX 65536
#define MAGIC 0x464f5247u

struct head {
    uint32_t magic, kind; /* W write, T truncate, C create, R rename, U unlink, M mkdir, S sync */
    uint64_t ino, dir, offset, length;
    uint32_t path_bytes, other_bytes;
    uint64_t data_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char below[PATH_MAX], place[PATH_MAX];
static size_t below_bytes;
static int journal = -1, sync_ms;
static const char *lies;
static unsigned char state[FDS_MAX]; /* 0 not known, 1 not ours, 2 ours */
static char kill_op[32], kill_part[256];
static long kill_left;
static unsigned long graves;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int real_open(const char *path, int flags, mode_t mode) {
    static int (*real)(const char *, int, ...);
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}
static ssize_t real_pwrite(int fd, const void *bytes, size_t n, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, bytes, n, at);
}
static ssize_t real_write(int fd, const void *bytes, size_t n) { REAL(write); return real(fd, bytes, n); }

__attribute__((constructor)) static void begin(void) {
    const char *root = getenv("FORGETFUL_BELOW"), *where = getenv("FORGETFUL_JOURNAL"), *kill_at = getenv("FORGETFUL_KILL");
    if (!root || !where) return;
    snprintf(below, sizeof below, "%s", root);
    snprintf(place, sizeof place, "%s", where);
    below_bytes = strlen(below);
    lies = getenv("FORGETFUL_LIES");
    if (getenv("FORGETFUL_SYNC_MS")) sync_ms = atoi(getenv("FORGETFUL_SYNC_MS"));
    if (kill_at) sscanf(kill_at, "%31[^:]:%ld:%255s", kill_op, &kill_left, kill_part);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/journal", place);
    journal = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) { fprintf(stderr, "forgetful: no journal at %s\n", path); abort(); }
}

static int is_below(const char *path) {
    return journal >= 0 && strncmp(path, below, below_bytes) == 0 && (path[below_bytes] == '/' || !path[below_bytes]);
}

/* The path of a descriptor where it is ours. */
static int ours(int fd, char *path) {
    if (journal < 0 || fd < 0 || fd >= FDS_MAX || fd == journal) return 0;
    if (state[fd] == 1) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    /* The folder above counts too: a sync of it covers the name of the folder below. */
    size_t above = strrchr(below, '/') - below;
    state[fd] = is_below(path) || (strlen(path) == above && strncmp(path, below, above) == 0) ? 2 : 1;
    return state[fd] == 2;
}

static int toggled(const char *name) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/%s", place, name);
    return access(path, F_OK) == 0;
}

static void wait_ms(long ms) {
    struct timespec some = { ms / 1000, (ms % 1000) * 1000000L };
    nanosleep(&some, NULL);
}

/* Whether this operation is the one to die at. */
static int dies(const char *op, const char *path) {
    if (!kill_op[0] || (strcmp(kill_op, op) != 0 && strcmp(kill_op, "any") != 0)) return 0;
    if (kill_part[0] && !strstr(path, kill_part)) return 0;
    return __sync_sub_and_fetch(&kill_left, 1) == 0;
}
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }
static void may_die(const char *op, const char *path) { if (dies(op, path)) die(); }

static uint64_t inode_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? st.st_ino : 0;
}
static uint64_t directory_of(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash) return 0;
    *slash = 0;
    return inode_of(folder);
}

/* Appends an entry; the caller holds the lock. Old bytes are copied from `from` where it is a descriptor. */
static void note(uint32_t kind, uint64_t ino, uint64_t dir, uint64_t offset, uint64_t length, const char *path,
                 const char *other, int from, uint64_t from_at, uint64_t data_bytes) {
    struct head head = { MAGIC, kind, ino, dir, offset, length, (uint32_t)strlen(path), (uint32_t)strlen(other), data_bytes };
    size_t bytes = sizeof head + head.path_bytes + head.other_bytes + data_bytes;
    char *entry = malloc(bytes);
    if (!entry) abort();
    memcpy(entry, &head, sizeof head);
    memcpy(entry + sizeof head, path, head.path_bytes);
    memcpy(entry + sizeof head + head.path_bytes, other, head.other_bytes);
    char *data = entry + sizeof head + head.path_bytes + head.other_bytes;
    memset(data, 0, data_bytes);
    if (from >= 0) {
        /* Through the path: the descriptor may be open for writing only. */
        int reader = real_open(path, O_RDONLY | O_CLOEXEC, 0);
        if (reader < 0) { fprintf(stderr, "forgetful: cannot read %s\n", path); abort(); }
        uint64_t done = 0;
        while (done < data_bytes) {
            ssize_t n = pread(reader, data + done, data_bytes - done, (off_t)(from_at + done));
            if (n <= 0) break;
            done += (uint64_t)n;
        }
        close(reader);
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t n = real_write(journal, entry + done, bytes - done);
        if (n <= 0) { fprintf(stderr, "forgetful: the journal takes no more\n"); abort(); }
        done += (size_t)n;
    }
    free(entry);
}

static ssize_t changed(int fd, const char *path, const void *bytes, size_t n, off_t at, int at_cursor) {
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    uint64_t size = (uint64_t)st.st_size, end = (uint64_t)at + n;
    if (end > size && toggled("full")) { errno = ENOSPC; return -1; }
    may_die("write-before", path);
    pthread_mutex_lock(&lock);
    uint64_t old = (uint64_t)at >= size ? 0 : (end < size ? n : size - (uint64_t)at);
    note('W', st.st_ino, 0, (uint64_t)at, size, path, "", fd, (uint64_t)at, old);
    if (dies("write-torn", path)) { real_pwrite(fd, bytes, n / 2, at); die(); }
    ssize_t written = at_cursor ? real_write(fd, bytes, n) : real_pwrite(fd, bytes, n, at);
    pthread_mutex_unlock(&lock);
    may_die("write-after", path);
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) {
    char path[PATH_MAX];
    return ours(fd, path) ? changed(fd, path, bytes, n, at, 0) : real_pwrite(fd, bytes, n, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }

static off_t cursor(int fd) {
    struct stat st;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &st) == 0) return st.st_size;
    return lseek(fd, 0, SEEK_CUR);
}
ssize_t write(int fd, const void *bytes, size_t n) {
    char path[PATH_MAX];
    return ours(fd, path) ? changed(fd, path, bytes, n, cursor(fd), 1) : real_write(fd, bytes, n);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (!ours(fd, path)) { REAL(writev); return real(fd, parts, count); }
    /* A short write is allowed: the caller goes on. */
    for (int i = 0; i < count; i++) if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

int ftruncate64(int fd, off_t length) {
    char path[PATH_MAX];
    static int (*real)(int, off_t);
    if (!real) real = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");
    if (!ours(fd, path)) return real(fd, length);
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    if (length > st.st_size && toggled("full")) { errno = ENOSPC; return -1; }
    pthread_mutex_lock(&lock);
    uint64_t lost = length < st.st_size ? (uint64_t)(st.st_size - length) : 0;
    note('T', st.st_ino, 0, (uint64_t)length, (uint64_t)st.st_size, path, "", fd, (uint64_t)length, lost);
    int result = real(fd, length);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int reserved(int fd, off_t end) {
    char path[PATH_MAX];
    struct stat st;
    if (!ours(fd, path) || fstat(fd, &st) != 0) return 0;
    if (toggled("full")) return ENOSPC;
    if (end > st.st_size) {
        pthread_mutex_lock(&lock);
        note('T', st.st_ino, 0, (uint64_t)end, (uint64_t)st.st_size, path, "", -1, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}
int fallocate64(int fd, int mode, off_t at, off_t n) {
    static int (*real)(int, int, off_t, off_t);
    if (!real) real = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate64");
    int fault = reserved(fd, at + n);
    if (fault) { errno = fault; return -1; }
    return real(fd, mode, at, n);
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int posix_fallocate64(int fd, off_t at, off_t n) {
    static int (*real)(int, off_t, off_t);
    if (!real) real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate64");
    int fault = reserved(fd, at + n);
    return fault ? fault : real(fd, at, n);
}
int posix_fallocate(int fd, off_t at, off_t n) { return posix_fallocate64(fd, at, n); }

static int opened(const char *path, int flags, mode_t mode) {
    if (!is_below(path) || (flags & O_ACCMODE) == O_RDONLY) {
        int fd = real_open(path, flags, mode);
        if (fd >= 0 && fd < FDS_MAX) state[fd] = 0;
        return fd;
    }
    struct stat st;
    int was = stat(path, &st) == 0;
    if (!was && (flags & O_CREAT) && toggled("full")) { errno = ENOSPC; return -1; }
    pthread_mutex_lock(&lock);
    if (!was && (flags & O_CREAT)) note('C', 0, directory_of(path), 0, 0, path, "", -1, 0, 0);
    if (was && (flags & O_TRUNC) && st.st_size > 0)
        note('T', st.st_ino, 0, 0, (uint64_t)st.st_size, path, "", 0, 0, (uint64_t)st.st_size);
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) state[fd] = 0;
    pthread_mutex_unlock(&lock);
    if (!was) may_die("create-after", path);
    return fd;
}
int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
    return opened(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
    return opened(path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
    if (folder == AT_FDCWD || path[0] == '/') return opened(path, flags, mode);
    int fd = real(folder, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) state[fd] = 0;
    return fd;
}
int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS_MAX && fd != journal) state[fd] = 0;
    return real(fd);
}
int dup2(int from, int to) { REAL(dup2); if (to >= 0 && to < FDS_MAX) state[to] = 0; return real(from, to); }
int dup3(int from, int to, int flags) { REAL(dup3); if (to >= 0 && to < FDS_MAX) state[to] = 0; return real(from, to, flags); }

/* Keeps what a name stood for, so that its inode lives and the name can come back. Gives the name in the grave. */
static void bury(const char *path, char *grave) {
    struct stat st;
    grave[0] = 0;
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) return;
    int kept;
    do {
        snprintf(grave, PATH_MAX + 64, "%s/grave/%lu", place, ++graves);
        kept = link(path, grave);
    } while (kept != 0 && errno == EEXIST);
    if (kept != 0) { fprintf(stderr, "forgetful: cannot keep %s: %s\n", path, strerror(errno)); abort(); }
}
int rename(const char *from, const char *to) {
    REAL(rename);
    if (!is_below(to)) return real(from, to);
    char grave[PATH_MAX + 64];
    may_die("rename-before", to);
    pthread_mutex_lock(&lock);
    bury(to, grave);
    char both[2 * PATH_MAX + 128];
    snprintf(both, sizeof both, "%s\n%s", to, grave);
    note('R', inode_of(from), directory_of(to), 0, 0, from, both, -1, 0, 0);
    int result = real(from, to);
    pthread_mutex_unlock(&lock);
    may_die("rename-after", to);
    return result;
}
int unlink(const char *path) {
    REAL(unlink);
    if (!is_below(path)) return real(path);
    char grave[PATH_MAX + 64];
    pthread_mutex_lock(&lock);
    bury(path, grave);
    if (grave[0]) note('U', 0, directory_of(path), 0, 0, path, grave, -1, 0, 0);
    int result = real(path);
    pthread_mutex_unlock(&lock);
    return result;
}
static int linked(const char *from, const char *to, int flags) {
    REAL(linkat);
    if (!is_below(to)) return real(AT_FDCWD, from, AT_FDCWD, to, flags);
    struct stat st;
    may_die("link-before", to);
    pthread_mutex_lock(&lock);
    /* A name that is taken stays what it is. */
    if (lstat(to, &st) != 0) note('C', 0, directory_of(to), 0, 0, to, "", -1, 0, 0);
    int result = real(AT_FDCWD, from, AT_FDCWD, to, flags);
    pthread_mutex_unlock(&lock);
    may_die("link-after", to);
    return result;
}
int link(const char *from, const char *to) { return linked(from, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(linkat);
    int is_whole = (from_folder == AT_FDCWD || from[0] == '/') && (to_folder == AT_FDCWD || to[0] == '/');
    return is_whole ? linked(from, to, flags) : real(from_folder, from, to_folder, to, flags);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (!is_below(path)) return real(path, mode);
    struct stat st;
    if (stat(path, &st) != 0 && toggled("full")) { errno = ENOSPC; return -1; }
    pthread_mutex_lock(&lock);
    if (stat(path, &st) != 0) note('M', 0, directory_of(path), 0, 0, path, "", -1, 0, 0);
    int result = real(path, mode);
    pthread_mutex_unlock(&lock);
    return result;
}
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    REAL(copy_file_range);
    char path[PATH_MAX];
    if (ours(out, path)) { errno = ENOSYS; return -1; }
    return real(in, in_at, out, out_at, n, flags);
}
void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    REAL(mmap64);
    char path[PATH_MAX];
    if (fd >= 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED) && ours(fd, path)) {
        fprintf(stderr, "forgetful: %s is mapped for writing, which this layer cannot see\n", path);
        abort();
    }
    return real(at, n, protection, flags, fd, offset);
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, n, protection, flags, fd, offset);
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    struct stat st;
    if (!ours(fd, path) || fstat(fd, &st) != 0) return real(fd);
    may_die("sync-before", path);
    while (toggled("stall")) wait_ms(5);
    if (toggled("broken")) { errno = EIO; return -1; }
    if (sync_ms) wait_ms(sync_ms);
    /* What is written while the sync runs is not covered by it. */
    pthread_mutex_lock(&lock);
    off_t upto = lseek(journal, 0, SEEK_END);
    pthread_mutex_unlock(&lock);
    int is_lie = lies && strstr(path, lies);
    int result = is_lie ? 0 : real(fd);
    if (result == 0 && !is_lie) {
        pthread_mutex_lock(&lock);
        note('S', st.st_ino, 0, (uint64_t)upto, 0, path, "", -1, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    may_die("sync-after", path);
    return result;
}
int fsync(int fd) { REAL(fsync); return synced(fd, real); }
int fdatasync(int fd) { REAL(fdatasync); return synced(fd, real); }
