/* A rest of the event loop between looks at the buffer of a socket. It touches no memory but its own. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include "kernels.h"

enum { SO_MEMINFO_ = 55, HELD = 0, NUMBERS = 9 }; /* include/uapi/linux/sock_diag.h */

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Octets that the kernel holds for the socket; -1: not known. */
static int64_t held_by(int descriptor) {
    uint32_t numbers[NUMBERS];
    socklen_t octets = sizeof numbers;
    if (getsockopt(descriptor, SOL_SOCKET, SO_MEMINFO_, numbers, &octets) < 0 || octets < sizeof *numbers) return -1;
    return numbers[HELD];
}

/* Wait until something is ready in the epoll `events`, for so many ns; whether it is, or a signal came. */
static int is_ready(int events, int64_t ns) {
    struct pollfd watched = {.fd = events, .events = POLLIN};
    struct timespec most = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    return ppoll(&watched, 1, &most, 0) != 0;
}

/* Look at the buffer of `descriptor` again and again for `left` ns, so often that a burst which fills it in `room` ns
   fills three quarters at a look. 0: the rest is over, or the buffer a quarter full. Else the event loop has work,
   ready now or due within `due` ns, and the next look is to be after so many ns. */
int64_t ut_rest(int32_t events, int32_t descriptor, int64_t buffer, int64_t room, int64_t left, int64_t due) {
    int64_t began = now(), at = began;
    while (left - (at - began) > 500000) {
        int64_t held = held_by(descriptor), rest = left - (at - began);
        if (held < 0 || held >= buffer / 4) return 0;
        double step = (0.75 - (double)held / buffer) * room;
        if (step < rest) rest = step < 1 ? 1 : (int64_t)step;
        if (rest > due - (at - began)) return rest;
        int work = is_ready(events, rest);
        rest -= now() - at;
        at = now();
        if (work) return rest > 1 ? rest : 1;
    }
    return 0;
}
