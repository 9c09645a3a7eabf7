/* A thread that passes on what comes out of one descriptor to another, and keeps a copy with the time.
 *
 * It is no Python thread: whoever prints from C with the GIL held, more than a pipe holds, would wait for a Python thread that waits for the GIL.
 * The bytes are passed on first and kept then. A forked child has no such thread; its copies of the descriptors are closed there, so that
 * the child holds open neither the terminal nor the end that tells the standby process of its parent's death.
 */
#ifndef AIMLITE_RELAY_H
#define AIMLITE_RELAY_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    AIMLITE_CHUNK = 1 << 16,
    AIMLITE_FRAME = 12,        /* what stands before each chunk kept: microseconds since 1970, length */
    AIMLITE_KEPT = 64 << 20,   /* no more than this is kept for whoever fetches it */
    AIMLITE_BACKLOG = 1 << 20, /* no pipe and no terminal holds more */
    AIMLITE_SETTLE_MS = 10,    /* a terminal passes on what was written in its own time */
    AIMLITE_RESIZE_MS = 250
};

typedef struct aimlite_relay {
    int source, target, number, terminal;
    int wake[2];
    int standby; /* a pipe to it; -1: there is none */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned char *data;
    size_t length, capacity;
    uint64_t lost; /* bytes not kept */
    uint64_t asked, answered;
    int keeps, reading, ended, joined, forked;
    struct aimlite_relay *next, *prev;
} aimlite_relay;

static pthread_mutex_t aimlite_relays_mutex = PTHREAD_MUTEX_INITIALIZER;
static aimlite_relay *aimlite_relays = NULL;

static uint64_t aimlite_relay_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void aimlite_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void aimlite_relay_before_fork(void) { pthread_mutex_lock(&aimlite_relays_mutex); }

static void aimlite_relay_after_fork_parent(void) { pthread_mutex_unlock(&aimlite_relays_mutex); }

static void aimlite_relay_after_fork_child(void) {
    aimlite_relay *r;
    for (r = aimlite_relays; r; r = r->next) {
        aimlite_close(&r->source);
        aimlite_close(&r->target);
        aimlite_close(&r->wake[0]);
        aimlite_close(&r->wake[1]);
        aimlite_close(&r->standby);
        pthread_mutex_init(&r->mutex, NULL);
        pthread_cond_init(&r->changed, NULL);
        r->ended = r->joined = r->forked = 1;
        r->length = 0;
    }
    pthread_mutex_unlock(&aimlite_relays_mutex);
}

/* 0: all was written, or cannot be for now (a full disk) and is given up. -1: nobody will ever read it. */
static int aimlite_relay_pass(aimlite_relay *r, const unsigned char *data, size_t n) {
    while (n) {
        ssize_t k = write(r->target, data, n);
        if (k > 0) {
            data += k;
            n -= (size_t)k;
        } else if (k < 0 && errno == EAGAIN) {
            struct pollfd p = {r->target, POLLOUT, 0};
            poll(&p, 1, -1);
        } else if (k < 0 && errno != EINTR) {
            return errno == EPIPE || errno == EIO || errno == EBADF || errno == ECONNRESET ? -1 : 0;
        }
    }
    return 0;
}

static void aimlite_relay_keep(aimlite_relay *r, const unsigned char *data, uint32_t n, uint64_t now) {
    size_t needed = r->length + AIMLITE_FRAME + n;
    if (!r->keeps) return;
    if (needed > r->capacity && needed <= AIMLITE_KEPT) {
        size_t capacity = needed * 2 < 4096 ? 4096 : needed * 2;
        unsigned char *grown = (unsigned char *)realloc(r->data, capacity);
        if (grown) {
            r->data = grown;
            r->capacity = capacity;
        }
    }
    if (needed > r->capacity) {
        r->lost += n;
        return;
    }
    memcpy(r->data + r->length, &now, 8);
    memcpy(r->data + r->length + 8, &n, 4);
    memcpy(r->data + r->length + AIMLITE_FRAME, data, n);
    r->length = needed;
}

/* Reads once. 1: there was something. 0: there is nothing now. -1: there will be nothing any more. */
static int aimlite_relay_pump(aimlite_relay *r, unsigned char *chunk) {
    ssize_t n;
    int result;
    pthread_mutex_lock(&r->mutex);
    r->reading = 1; /* before anything is taken: else it would be seen neither in the pipe nor here */
    pthread_mutex_unlock(&r->mutex);
    n = read(r->source, chunk, AIMLITE_CHUNK);
    result = n > 0 ? 1 : n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    if (n > 0) {
        uint64_t now = aimlite_relay_now_us();
        if (aimlite_relay_pass(r, chunk, (size_t)n) != 0) {
            unsigned char number = (unsigned char)r->number;
            pthread_mutex_lock(&r->mutex);
            if (r->standby >= 0 && write(r->standby, &number, 1) < 0) aimlite_close(&r->standby); /* it is not to hold the source open */
            pthread_mutex_unlock(&r->mutex);
            result = -1;
        }
        pthread_mutex_lock(&r->mutex);
        aimlite_relay_keep(r, chunk, (uint32_t)n, now);
    } else {
        pthread_mutex_lock(&r->mutex);
    }
    r->reading = 0;
    if (result < 0) aimlite_close(&r->source); /* whoever still writes is told so, as without us */
    pthread_mutex_unlock(&r->mutex);
    return result;
}

/* All that was written before it was asked for; what is being written meanwhile does not make it endless. */
static int aimlite_relay_drain(aimlite_relay *r, unsigned char *chunk) {
    int rounds, state = 1;
    for (rounds = 0; rounds < AIMLITE_BACKLOG / 4096 && state >= 0; rounds++) {
        state = aimlite_relay_pump(r, chunk);
        if (state == 0) {
            struct pollfd p = {r->source, POLLIN, 0};
            if (!r->terminal || poll(&p, 1, AIMLITE_SETTLE_MS) <= 0) break;
        }
    }
    return state;
}

static void aimlite_relay_resize(aimlite_relay *r) {
    struct winsize real, ours;
    if (ioctl(r->target, TIOCGWINSZ, &real) == 0 && ioctl(r->source, TIOCGWINSZ, &ours) == 0 && memcmp(&real, &ours, sizeof real))
        ioctl(r->source, TIOCSWINSZ, &real);
}

static void *aimlite_relay_run(void *argument) {
    aimlite_relay *r = (aimlite_relay *)argument;
    unsigned char *chunk = (unsigned char *)(r + 1), bell[64];
    int state = 0;
    while (state >= 0) {
        struct pollfd p[2] = {{r->wake[0], POLLIN, 0}, {r->source, POLLIN, 0}};
        uint64_t asked;
        poll(p, 2, r->terminal ? AIMLITE_RESIZE_MS : -1);
        if (r->terminal) aimlite_relay_resize(r);
        if (p[0].revents) {
            ssize_t ignored = read(r->wake[0], bell, sizeof bell);
            (void)ignored;
        }
        pthread_mutex_lock(&r->mutex);
        asked = r->asked;
        pthread_mutex_unlock(&r->mutex);
        if (p[1].revents) state = aimlite_relay_pump(r, chunk);
        if (state >= 0 && asked != r->answered) {
            state = aimlite_relay_drain(r, chunk);
            pthread_mutex_lock(&r->mutex);
            r->answered = asked;
            pthread_cond_broadcast(&r->changed);
            pthread_mutex_unlock(&r->mutex);
        }
    }
    pthread_mutex_lock(&r->mutex);
    aimlite_close(&r->target);
    aimlite_close(&r->standby);
    r->ended = 1;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

static void aimlite_relay_unlist(aimlite_relay *r) {
    pthread_mutex_lock(&aimlite_relays_mutex);
    if (r->prev) r->prev->next = r->next;
    else aimlite_relays = r->next;
    if (r->next) r->next->prev = r->prev;
    pthread_mutex_unlock(&aimlite_relays_mutex);
}

/* Lets go of everything of a relay whose thread has ended. */
static void aimlite_relay_free(aimlite_relay *r) {
    if (!r->joined) pthread_join(r->thread, NULL);
    aimlite_relay_unlist(r);
    aimlite_close(&r->source);
    aimlite_close(&r->target);
    aimlite_close(&r->wake[0]);
    aimlite_close(&r->wake[1]);
    aimlite_close(&r->standby);
    pthread_mutex_destroy(&r->mutex);
    pthread_cond_destroy(&r->changed);
    free(r->data);
    free(r);
}

/* Takes over all descriptors. NULL: there is no thread to be had, the descriptors are the caller's still, errno says why. */
static aimlite_relay *aimlite_relay_start(int source, int target, int wake_reads, int wake_writes, int number, int terminal) {
    static int hooked = 0;
    aimlite_relay *r = (aimlite_relay *)calloc(1, sizeof(aimlite_relay) + AIMLITE_CHUNK);
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed;
    if (!r) return NULL;
    r->source = source;
    r->target = target;
    r->wake[0] = wake_reads;
    r->wake[1] = wake_writes;
    r->number = number;
    r->terminal = terminal;
    r->standby = -1;
    r->keeps = 1;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    pthread_mutex_lock(&aimlite_relays_mutex);
    if (!hooked) {
        pthread_atfork(aimlite_relay_before_fork, aimlite_relay_after_fork_parent, aimlite_relay_after_fork_child);
        hooked = 1;
    }
    r->next = aimlite_relays;
    if (r->next) r->next->prev = r;
    aimlite_relays = r;
    pthread_mutex_unlock(&aimlite_relays_mutex);
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 17);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the program */
    failed = pthread_create(&r->thread, &attributes, aimlite_relay_run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed) {
        r->joined = 1;
        r->source = r->target = r->wake[0] = r->wake[1] = -1;
        aimlite_relay_free(r);
        errno = failed;
        return NULL;
    }
    return r;
}

static void aimlite_relay_wake(aimlite_relay *r) {
    ssize_t ignored = write(r->wake[1], "", 1); /* full: it is awake anyway */
    (void)ignored;
}

/* Waits until all that was written before is passed on and kept. 1: there is more to come; 0: nobody can write any more. */
static int aimlite_relay_sync(aimlite_relay *r) {
    uint64_t asked;
    int more;
    pthread_mutex_lock(&r->mutex);
    asked = ++r->asked;
    aimlite_relay_wake(r);
    while (!r->ended && r->answered < asked) pthread_cond_wait(&r->changed, &r->mutex);
    more = !r->ended;
    pthread_mutex_unlock(&r->mutex);
    return more;
}

/* Waits, but not for long, until nothing waits to be passed on. */
static void aimlite_relay_settle(aimlite_relay *r, int limit_us) {
    int waited, busy, waiting;
    for (waited = 0; waited < limit_us; waited += 50) {
        struct timespec pause = {0, 50000};
        waiting = 0;
        pthread_mutex_lock(&r->mutex);
        busy = r->reading || (r->source >= 0 && (ioctl(r->source, FIONREAD, &waiting) != 0 || waiting > 0));
        pthread_mutex_unlock(&r->mutex);
        if (!busy) return;
        nanosleep(&pause, NULL);
    }
}

/* Whether nothing waits to be passed on or fetched. */
static int aimlite_relay_idle(aimlite_relay *r) {
    int idle, waiting = 0;
    pthread_mutex_lock(&r->mutex);
    idle = r->length == 0 && !r->reading && (r->source < 0 || (ioctl(r->source, FIONREAD, &waiting) == 0 && waiting == 0));
    pthread_mutex_unlock(&r->mutex);
    return idle;
}

#endif
