/* The descriptor of one journal, its mutex, and what a fork does to them.
 *
 * Every open journal is in one list, from its creation to its end; so is the copy of its descriptor that is being forced to the disk. A forked child closes their descriptors: an flock belongs to the open file description, so a child that kept one would
 * keep a dead parent's run "running". It is registered with pthread_atfork and not with os.register_at_fork because a C library's fork() does not pass
 * through Python. The fork does not wait for the journals' mutexes: os.fork() holds the GIL, for which whoever writes a large record with the
 * mutex waits (a deadlock), and nothing in the child needs the write to be over. The mutexes begin anew there.
 */
#ifndef AIMLITE_JOURNAL_FILE_H
#define AIMLITE_JOURNAL_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

typedef struct aimlite_file {
    int fd;     /* -1: closed */
    int forked; /* closed by a fork, in the child */
    int alone;  /* belongs to no journal: one that is being begun or let go of */
    pthread_mutex_t mutex;
    struct aimlite_file *next, *prev;
} aimlite_file;

/* What is still to be appended to a journal should the process exit with a status other than 0: n bytes, or the m behind them where the status is one that a
 * shell gives to what SIGINT or SIGTERM ended. */
typedef struct aimlite_last_words {
    int fd;
    uint64_t offset;
    size_t n, m;
    struct aimlite_last_words *next;
    unsigned char data[];
} aimlite_last_words;

static pthread_mutex_t aimlite_files_mutex = PTHREAD_MUTEX_INITIALIZER;
static aimlite_file *aimlite_files = NULL;
static int aimlite_fork_hooked = 0;
static aimlite_last_words *aimlite_all_last_words = NULL;
static int aimlite_last_words_registered = 0;

/* Whether a library is in use that waits, when the process exits, for threads which a forked child does not have. Joining them there ends the child with an
 * abort() where a new thread got the memory of one of them. */
static int aimlite_has_foreign_threads = 0;

#ifdef __GLIBC__
/* Called by exit() before the destructors of what was loaded before the fork. */
static void aimlite_leave_child(int status, void *unused) {
    (void)unused;
    fflush(NULL);
    _exit(status);
}
#endif

static void aimlite_before_fork(void) { pthread_mutex_lock(&aimlite_files_mutex); } /* never held by one who waits */

static void aimlite_after_fork_parent(void) { pthread_mutex_unlock(&aimlite_files_mutex); }

static void aimlite_after_fork_child(void) {
    aimlite_file *f;
    for (f = aimlite_files; f; f = f->next) {
        if (f->fd >= 0) {
            close(f->fd);
            f->fd = -1;
            f->forked = 1;
        }
        pthread_mutex_init(&f->mutex, NULL);
    }
    for (; aimlite_all_last_words; aimlite_all_last_words = aimlite_all_last_words->next) close(aimlite_all_last_words->fd);
#ifdef __GLIBC__
    aimlite_last_words_registered = 0; /* what is registered from here on is called before what was before */
    if (aimlite_has_foreign_threads) on_exit(aimlite_leave_child, NULL);
#endif
    pthread_mutex_unlock(&aimlite_files_mutex);
}

/* With the list's mutex held. */
static void aimlite_hook_forks(void) {
    if (!aimlite_fork_hooked) pthread_atfork(aimlite_before_fork, aimlite_after_fork_parent, aimlite_after_fork_child);
    aimlite_fork_hooked = 1;
}

static void aimlite_note_foreign_threads(void) {
    pthread_mutex_lock(&aimlite_files_mutex);
    aimlite_hook_forks();
    aimlite_has_foreign_threads = 1;
    pthread_mutex_unlock(&aimlite_files_mutex);
}

static aimlite_file *aimlite_file_new(void) {
    aimlite_file *f = (aimlite_file *)calloc(1, sizeof(aimlite_file));
    if (!f) return NULL;
    f->fd = -1;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_mutex_lock(&aimlite_files_mutex);
    aimlite_hook_forks();
    f->next = aimlite_files;
    if (f->next) f->next->prev = f;
    aimlite_files = f;
    pthread_mutex_unlock(&aimlite_files_mutex);
    return f;
}

/* With the list's mutex held. */
static void aimlite_file_unlink(aimlite_file *f) {
    if (f->prev) f->prev->next = f->next;
    else aimlite_files = f->next;
    if (f->next) f->next->prev = f->prev;
    pthread_mutex_destroy(&f->mutex);
    free(f);
}

static void aimlite_file_free(aimlite_file *f) {
    pthread_mutex_lock(&aimlite_files_mutex);
    aimlite_file_unlink(f);
    pthread_mutex_unlock(&aimlite_files_mutex);
}

/* Nothing below that opens, copies, hands over or closes a descriptor leaves a moment in which a fork finds it open and not in the list. */

/* A new file above descriptor 2, in the list by itself. Where stdin, stdout or stderr is closed a new file gets its descriptor, and whatever C prints would go
 * into the file. -1: errno says why. */
static int aimlite_file_create(const char *path) {
    aimlite_file *f = aimlite_file_new();
    int fd, reason;
    if (!f) {
        errno = ENOMEM;
        return -1;
    }
    pthread_mutex_lock(&aimlite_files_mutex);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 && fd <= 2) {
        int above = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        reason = errno;
        close(fd);
        errno = reason;
        fd = above;
    }
    reason = errno;
    f->fd = fd;
    f->alone = 1;
    if (fd < 0) aimlite_file_unlink(f);
    pthread_mutex_unlock(&aimlite_files_mutex);
    errno = reason;
    return fd;
}

/* With the list's mutex held: takes the descriptor out of the list where it stands by itself. */
static void aimlite_file_forget(int fd) {
    aimlite_file *f;
    for (f = aimlite_files; f; f = f->next) {
        if (f->alone && f->fd == fd) {
            aimlite_file_unlink(f);
            return;
        }
    }
}

/* The descriptor is f's from now on. */
static void aimlite_file_attach(aimlite_file *f, int fd) {
    pthread_mutex_lock(&aimlite_files_mutex);
    aimlite_file_forget(fd);
    f->fd = fd;
    f->forked = 0;
    pthread_mutex_unlock(&aimlite_files_mutex);
}

/* The descriptor of f, which stands by itself from now on; -1 where there is none, or no memory: then f keeps it. */
static int aimlite_file_detach(aimlite_file *f) {
    aimlite_file *alone = aimlite_file_new();
    int fd = -1;
    if (!alone) return -1;
    pthread_mutex_lock(&aimlite_files_mutex);
    if (f->fd >= 0) {
        fd = alone->fd = f->fd;
        alone->alone = 1;
        f->fd = -1;
    } else {
        aimlite_file_unlink(alone);
    }
    pthread_mutex_unlock(&aimlite_files_mutex);
    return fd;
}

/* A copy of f's descriptor, to be freed with aimlite_file_close; NULL: errno says why. */
static aimlite_file *aimlite_file_copy(aimlite_file *f) {
    aimlite_file *copy = aimlite_file_new();
    int reason = ENOMEM;
    if (copy) {
        pthread_mutex_lock(&aimlite_files_mutex);
        copy->fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
        reason = errno;
        if (copy->fd < 0) {
            aimlite_file_unlink(copy);
            copy = NULL;
        }
        pthread_mutex_unlock(&aimlite_files_mutex);
    }
    errno = reason;
    return copy;
}

static void aimlite_file_close(aimlite_file *f) {
    pthread_mutex_lock(&aimlite_files_mutex);
    if (f->fd >= 0) close(f->fd);
    aimlite_file_unlink(f);
    pthread_mutex_unlock(&aimlite_files_mutex);
}

/* Closes a descriptor that stands by itself. 0, or -1: errno says why. */
static int aimlite_file_close_alone(int fd) {
    int failed, reason;
    pthread_mutex_lock(&aimlite_files_mutex);
    aimlite_file_forget(fd);
    failed = close(fd);
    reason = errno;
    pthread_mutex_unlock(&aimlite_files_mutex);
    errno = reason;
    return failed;
}

/* Writes all n bytes at offset, or none: after a short write the file is cut back to offset.
 * 0: written. 1: not written, the file is as it was, errno says why. 2: not written and not cut back either: the file must not be written again. */
static int aimlite_file_write(int fd, const unsigned char *data, size_t n, uint64_t offset) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = pwrite(fd, data + done, n - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            int reason = k < 0 ? errno : ENOSPC;
            int failed = done > 0 && ftruncate(fd, (off_t)offset) != 0;
            errno = reason;
            return failed ? 2 : 1;
        }
        done += (size_t)k;
    }
    return 0;
}

/* Called by exit(), after Python is gone: only here is the status known that sys.exit() was given. */
static void aimlite_say_last_words(int status, void *unused) {
    aimlite_last_words *w;
    int interrupted = status == 128 + 2 || status == 128 + 15;
    (void)unused;
    for (w = aimlite_all_last_words; status != 0 && w; w = w->next) {
        if (interrupted)
            aimlite_file_write(w->fd, w->data + w->n, w->m, w->offset);
        else
            aimlite_file_write(w->fd, w->data, w->n, w->offset);
    }
}

#ifdef __GLIBC__
#define AIMLITE_TELLS_EXIT_STATUS 1
#else
#define AIMLITE_TELLS_EXIT_STATUS 0
#endif

/* Takes over fd. 0: done. -1: this platform or its memory does not do it, fd is the caller's. */
static int aimlite_leave_last_words(int fd, const unsigned char *data, size_t n, size_t m, uint64_t offset) {
#ifdef __GLIBC__
    aimlite_last_words *w = (aimlite_last_words *)malloc(sizeof(aimlite_last_words) + n + m);
    if (!w) return -1;
    if (!aimlite_last_words_registered && on_exit(aimlite_say_last_words, NULL) != 0) {
        free(w);
        return -1;
    }
    aimlite_last_words_registered = 1;
    w->fd = fd;
    w->offset = offset;
    w->n = n;
    w->m = m;
    memcpy(w->data, data, n + m);
    w->next = aimlite_all_last_words;
    aimlite_all_last_words = w;
    return 0;
#else
    (void)fd, (void)data, (void)n, (void)m, (void)offset, (void)aimlite_say_last_words;
    return -1;
#endif
}

static uint64_t aimlite_syncs = 0; /* for the tests; changed with the interpreter's lock held or not, so it is atomic */

static int aimlite_fdatasync(int fd) {
    __atomic_add_fetch(&aimlite_syncs, 1, __ATOMIC_RELAXED);
#ifdef __APPLE__
    return fsync(fd);
#else
    return fdatasync(fd);
#endif
}

static uint64_t aimlite_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

#endif
