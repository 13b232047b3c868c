/* TCP load with as little in the way as C allows: bulk streams and requests with their answers.
 *
 *   traffic receive ADDRESS STREAMS WARM_UP SECONDS   prints its port, then bytes and seconds
 *   traffic send ADDRESS PORT STREAMS CONGESTION      sends until the other side closes, under cubic, bbr, ...
 *   traffic answer ADDRESS                            prints its port, answers byte for byte
 *   traffic ask ADDRESS PORT WARM_UP SECONDS          prints microseconds: p50 p99 mean, and how many
 *   traffic connect ADDRESS PORT WARM_UP SECONDS      the same, with a new connection for each request
 *
 * Owns: its sockets and one thread a stream.
 * Never: counts what was only sent, or anything outside [warm-up, warm-up + seconds).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 64, BLOCK = 1 << 17, TIMES_MAX = 1 << 20 };

static double start_at, end_at;
static uint64_t received[STREAMS_MAX];
static int sockets[STREAMS_MAX];

static void fail(const char *what) {
    fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static socklen_t parse(const char *address, int port, struct sockaddr_storage *out) {
    struct sockaddr_in *four = (struct sockaddr_in *)out;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        return sizeof *four;
    }
    if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        return sizeof *six;
    }
    errno = EINVAL;
    fail(address);
    return 0;
}

static int listening(const char *address) {
    struct sockaddr_storage own;
    socklen_t length = parse(address, 0, &own);
    int sock = socket(own.ss_family, SOCK_STREAM, 0);
    if (sock < 0 || bind(sock, (struct sockaddr *)&own, length) || listen(sock, 1024))
        fail("listen");
    getsockname(sock, (struct sockaddr *)&own, &length);
    printf("port %d\n", ntohs(((struct sockaddr_in *)&own)->sin_port)); /* at one place in both families */
    fflush(stdout);
    return sock;
}

/* `congestion` before the connection: one that paces (bbr) leaves pacing on for whichever follows it. */
static int connected(const char *address, int port, const char *congestion) {
    struct sockaddr_storage peer;
    socklen_t length = parse(address, port, &peer);
    int sock = socket(peer.ss_family, SOCK_STREAM, 0), one = 1;
    if (sock < 0)
        fail("socket");
    if (congestion && setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)))
        fail(congestion);
    if (connect(sock, (struct sockaddr *)&peer, length))
        fail("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return sock;
}

static void *receive_stream(void *argument) {
    size_t index = (size_t)argument;
    char *block = malloc(BLOCK);
    double at = now();
    while (at < end_at) {
        ssize_t count = recv(sockets[index], block, BLOCK, 0);
        at = now();
        if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
            break;
        if (count > 0 && at >= start_at && at < end_at)
            received[index] += (uint64_t)count;
    }
    free(block);
    return NULL;
}

static void *send_stream(void *argument) {
    char *block = calloc(1, BLOCK);
    while (send(sockets[(size_t)argument], block, BLOCK, MSG_NOSIGNAL) > 0)
        ;
    free(block);
    return NULL;
}

static void run_streams(int streams, void *(*body)(void *)) {
    pthread_t threads[STREAMS_MAX];
    for (int i = 0; i < streams; i++)
        if (pthread_create(&threads[i], NULL, body, (void *)(size_t)i))
            fail("thread");
    for (int i = 0; i < streams; i++)
        pthread_join(threads[i], NULL);
}

static void do_receive(const char *address, int streams, double warm_up, double seconds) {
    struct timeval stall = {0, 200000};
    int listener = listening(address);
    uint64_t total = 0, least = UINT64_MAX;
    for (int i = 0; i < streams; i++) {
        if ((sockets[i] = accept(listener, NULL, NULL)) < 0)
            fail("accept");
        setsockopt(sockets[i], SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall);
    }
    start_at = now() + warm_up;
    end_at = start_at + seconds;
    run_streams(streams, receive_stream);
    for (int i = 0; i < streams; i++) {
        total += received[i];
        least = received[i] < least ? received[i] : least;
    }
    printf("bytes %llu seconds %g least %llu\n", (unsigned long long)total, seconds, (unsigned long long)least);
}

static void do_send(const char *address, int port, int streams, const char *congestion) {
    for (int i = 0; i < streams; i++)
        sockets[i] = connected(address, port, congestion);
    run_streams(streams, send_stream);
}

static void *answer_stream(void *argument) {
    int sock = (int)(size_t)argument, one = 1;
    char byte;
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (recv(sock, &byte, 1, 0) == 1 && send(sock, &byte, 1, MSG_NOSIGNAL) == 1)
        ;
    close(sock);
    return NULL;
}

/* One connection after the other, in this thread: one asker has one open at a time. */
static void do_answer(const char *address) {
    int listener = listening(address), sock;
    while ((sock = accept(listener, NULL, NULL)) >= 0)
        answer_stream((void *)(size_t)sock);
    fail("accept");
}

static int earlier(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void exchange(int sock) {
    char byte = 'x';
    if (send(sock, &byte, 1, MSG_NOSIGNAL) != 1 || recv(sock, &byte, 1, 0) != 1)
        fail("exchange");
}

static void do_ask(const char *address, int port, double warm_up, double seconds, int reconnect) {
    static double times[TIMES_MAX];
    struct linger reset = {1, 0}; /* no TIME_WAIT, or ports run out */
    size_t count = 0;
    double before, after, sum = 0;
    int sock = reconnect ? -1 : connected(address, port, NULL);
    start_at = now() + warm_up;
    end_at = start_at + seconds;
    do {
        before = now();
        if (reconnect)
            sock = connected(address, port, NULL);
        exchange(sock);
        after = now();
        if (reconnect) {
            setsockopt(sock, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(sock);
        }
        if (before >= start_at && count < TIMES_MAX)
            sum += times[count++] = (after - before) * 1e6;
    } while (after < end_at);
    if (!count)
        fail("no answer in time");
    qsort(times, count, sizeof times[0], earlier);
    printf("p50 %.2f p99 %.2f mean %.2f count %zu\n", times[count / 2], times[count * 99 / 100], sum / (double)count, count);
}

int main(int n, char **words) {
    const char *kind = n > 1 ? words[1] : "";
    if (!strcmp(kind, "receive") && n == 6 && atoi(words[3]) <= STREAMS_MAX)
        do_receive(words[2], atoi(words[3]), atof(words[4]), atof(words[5]));
    else if (!strcmp(kind, "send") && n == 6 && atoi(words[4]) <= STREAMS_MAX)
        do_send(words[2], atoi(words[3]), atoi(words[4]), words[5]);
    else if (!strcmp(kind, "answer") && n == 3)
        do_answer(words[2]);
    else if ((!strcmp(kind, "ask") || !strcmp(kind, "connect")) && n == 6)
        do_ask(words[2], atoi(words[3]), atof(words[4]), atof(words[5]), !strcmp(kind, "connect"));
    else {
        fprintf(stderr, "traffic receive|send|answer|ask|connect ARGUMENTS (see the source)\n");
        return 2;
    }
    return 0;
}
