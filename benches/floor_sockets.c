/* The floors of an echo server over TCP, Unix streams, UDP and Unix datagrams: the system calls that epoll makes necessary,
 * and nothing else.
 *
 * One thread, edge-triggered, one buffer: epoll_wait, recv and send, or recvfrom and sendto. scripts/floor-sockets states the
 * figures of `serve` as ratios to these. It is a yardstick and no server: it spins while a peer does not read, answers every
 * sender, and checks nothing.
 *
 * usage: floor_sockets tcp PORT [BYTES] | unix NAME | unixgram NAME | udp PORT   (abstract names; 127.0.0.1; it ends by a
 * signal). BYTES is the length of a read of a stream, at most 266240; 65536 without it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[266240]; /* the longest read of serve; its longest datagram is 4 KiB shorter */

static ssize_t stream_bytes = 65536;

static void watch(int epoll, int descriptor, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = descriptor};
    epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

/* A short read has emptied a TCP socket. That of a Unix stream does not mean that it is empty, so it is read until it would
 * block. */
static void echo_stream(int connection, int is_tcp) {
    for (;;) {
        ssize_t count = recv(connection, buffer, stream_bytes, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) {
            close(connection);
            return;
        }
        for (ssize_t sent = 0; sent < count;) {
            ssize_t taken = send(connection, buffer + sent, count - sent, MSG_NOSIGNAL);
            if (taken > 0) sent += taken;
            else if (errno != EAGAIN) break; /* the next recv returns the error */
        }
        if (is_tcp && count < stream_bytes) return;
    }
}

static void echo_datagrams(int descriptor) {
    struct sockaddr_storage sender;
    for (;;) {
        socklen_t length = sizeof sender;
        ssize_t count = recvfrom(descriptor, buffer, sizeof buffer, 0, (struct sockaddr *)&sender, &length);
        if (count < 0) return;
        sendto(descriptor, buffer, count, MSG_NOSIGNAL, (struct sockaddr *)&sender, length);
    }
}

static int bound(int family, int type, const void *address, socklen_t length) {
    int descriptor = socket(family, type | SOCK_NONBLOCK, 0);
    int one = 1;
    if (family == AF_INET) setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(descriptor, address, length)) exit(69);
    if (type == SOCK_STREAM && listen(descriptor, 4096)) exit(69);
    return descriptor;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4 || strlen(argv[2]) > 100) return 64;
    if (argc == 4) stream_bytes = atoi(argv[3]);
    if (stream_bytes < 1 || stream_bytes > (ssize_t)sizeof buffer) return 64;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path + 1, argv[2]);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[2]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    int epoll = epoll_create1(0), listener = -1, is_tcp = !strcmp(argv[1], "tcp"), one = 1;
    if (is_tcp) {
        listener = bound(AF_INET, SOCK_STREAM, &address, sizeof address);
        watch(epoll, listener, EPOLLIN);
    } else if (!strcmp(argv[1], "unix")) {
        listener = bound(AF_UNIX, SOCK_STREAM, &name, length);
        watch(epoll, listener, EPOLLIN);
    } else if (!strcmp(argv[1], "unixgram")) {
        watch(epoll, bound(AF_UNIX, SOCK_DGRAM, &name, length), EPOLLIN | EPOLLET);
    } else if (!strcmp(argv[1], "udp")) {
        watch(epoll, bound(AF_INET, SOCK_DGRAM, &address, sizeof address), EPOLLIN | EPOLLET);
    } else {
        return 64;
    }

    struct epoll_event events[128];
    for (;;) {
        int ready = epoll_wait(epoll, events, 128, -1);
        for (int i = 0; i < ready; i++) {
            int descriptor = events[i].data.fd, connection;
            if (descriptor == listener) {
                while ((connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (is_tcp) setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    watch(epoll, connection, EPOLLIN | EPOLLRDHUP | EPOLLET);
                }
            } else if (listener >= 0) {
                echo_stream(descriptor, is_tcp);
            } else {
                echo_datagrams(descriptor);
            }
        }
    }
}
