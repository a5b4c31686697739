/* Agents as load, many in a process of their own: RFC 6455 on plain sockets, and one epoll loop.

   Python would take as much CPU for this as the gateway that is measured. A command is a line of words on stdin,
   and is answered by a line of JSON on stdout:

     open GROUP KIND COUNT PORT RETURNS   connect agents, named GROUP-00000 and so on; RETURNS is 0 or 1
     close GROUP                          drop their connections, and forget them
     state GROUP                          how they are doing
     each GROUP                           [ws_id, different messages, messages that came again, highest seq] of each
     watch GROUP                          from now on keep when each message came
     arrivals GROUP                       [n, monotonic seconds] of what came since `watch`

   How an agent speaks is its kind: see kinds.c. */

#define _GNU_SOURCE
#include "agents.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALLED_BUFFER 4096
#define AGENTS_PER_ADDRESS 10000
#define OPENING_AT_ONCE 100
#define FIRST_WAIT 0.1
#define LONGEST_WAIT 1.0
#define ONE_READ (1 << 18)
#define LARGEST_FRAME (1 << 21)

static int poll_fd;
static struct group *groups;
static int opening;    /* sockets whose handshake is not over */
static double arrived; /* when the bytes came that are looked at */
static char input[LARGEST_FRAME + ONE_READ + 1];
static char output[1 << 16];
static size_t output_size;

/* Small things */

static void fail(const char *what) {
    fprintf(stderr, "agents: %s: %s\n", what, errno ? strerror(errno) : "this should not happen");
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* xorshift32: good enough for masks and for jitter. */
static uint32_t chance(void) {
    static uint32_t state;
    while (!state) state = (uint32_t)time(NULL) ^ (uint32_t)getpid() << 16;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

void add(struct bytes *bytes, const void *data, size_t size) {
    if (bytes->size + size > bytes->room) {
        bytes->room = (bytes->size + size) * 2;
        bytes->at = realloc(bytes->at, bytes->room);
        if (!bytes->at) fail("no memory");
    }
    memcpy(bytes->at + bytes->size, data, size);
    bytes->size += size;
}

void keep(struct bytes *bytes, const char *data, size_t size) {
    bytes->size = 0;
    if (size) add(bytes, data, size);
}

long number_after(const char *name, const char *data, size_t size) {
    const char *found = memmem(data, size, name, strlen(name));
    return found ? strtol(found + strlen(name), NULL, 10) : -1;
}

/* Agents that wait to connect: a heap, the earliest first */

struct wait {
    double due;
    long order;
    struct agent *agent;
};

static struct wait *waiting;
static size_t waiting_count, waiting_room;

static bool before(const struct wait *one, const struct wait *other) {
    return one->due < other->due || (one->due == other->due && one->order < other->order);
}

static void wait_until(struct agent *agent, double due) {
    static long order;
    if (waiting_count == waiting_room) {
        waiting_room = waiting_room * 2 + 1024;
        waiting = realloc(waiting, waiting_room * sizeof *waiting);
        if (!waiting) fail("no memory");
    }
    struct wait entry = {due, order++, agent};
    size_t place = waiting_count++;
    for (size_t above; place && before(&entry, &waiting[above = (place - 1) / 2]); place = above)
        waiting[place] = waiting[above];
    waiting[place] = entry;
}

static struct agent *next_waiting(void) {
    struct agent *first = waiting[0].agent;
    struct wait entry = waiting[--waiting_count];
    size_t place = 0, child;
    while ((child = place * 2 + 1) < waiting_count) {
        if (child + 1 < waiting_count && before(&waiting[child + 1], &waiting[child])) child++;
        if (!before(&waiting[child], &entry)) break;
        waiting[place] = waiting[child];
        place = child;
    }
    waiting[place] = entry;
    return first;
}

/* Sockets */

static void listen_for(struct agent *agent, int change, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = agent};
    if (epoll_ctl(poll_fd, change, agent->fd, &event)) fail("epoll");
}

static void lost(struct agent *agent) {
    struct group *group = agent->group;
    if (agent->fd < 0) return;
    close(agent->fd);
    agent->fd = -1;
    if (agent->in) {
        group->opened--;
        group->lost++;
    } else {
        opening--;
    }
    agent->upgraded = agent->in = false;
    agent->rest.size = agent->stream.size = 0;
    if (!group->returns) return;
    /* Full jitter, up to twice as long at each failure: what a client is advised to do. */
    double longest = FIRST_WAIT * (1 << agent->failures);
    if (longest < LONGEST_WAIT) agent->failures++;
    else longest = LONGEST_WAIT;
    wait_until(agent, now() + longest * (0.2 + 0.8 * chance() / UINT32_MAX));
}

static void start(struct agent *agent) {
    struct group *group = agent->group;
    int yes = 1, small = STALLED_BUFFER;
    agent->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (agent->fd < 0) fail("socket");
    if (group->kind->stalls) setsockopt(agent->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(agent->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    /* 28,000 ports an address: many agents need several addresses. */
    setsockopt(agent->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    struct sockaddr_in own = {.sin_family = AF_INET}, server = {.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + agent->number / AGENTS_PER_ADDRESS);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons(group->port);
    if (bind(agent->fd, (struct sockaddr *)&own, sizeof own)) fail("bind");
    agent->last = agent->ack = 0;
    opening++;
    listen_for(agent, EPOLL_CTL_ADD, EPOLLOUT);
    if (connect(agent->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) lost(agent);
}

/* Send what `say` has gathered. An agent that cannot send so little is as good as lost, and counted so. */
static void flush(struct agent *agent) {
    size_t size = output_size;
    output_size = 0;
    if (size && agent->fd >= 0 && send(agent->fd, output, size, MSG_NOSIGNAL) != (ssize_t)size) lost(agent);
}

void say(struct agent *agent, int opcode, const char *data, size_t size) {
    if (size > 4096) fail("a frame that is too large");
    if (output_size + size + 8 > sizeof output) flush(agent);
    char *to = output + output_size;
    *to++ = 0x80 | opcode;
    *to++ = 0x80 | (size < 126 ? size : 126);
    if (size >= 126) {
        *to++ = size >> 8;
        *to++ = size;
    }
    uint32_t mask = chance();
    memcpy(to, &mask, 4);
    for (size_t i = 0; i < size; i++) to[4 + i] = data[i] ^ to[i & 3];
    output_size = to + 4 + size - output;
}

static void ask(struct agent *agent) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct group *group = agent->group;
    char key[22] = "", ws_id[80], path[256], head[1024];
    for (int i = 0; i < 21; i++) key[i] = letters[chance() >> 8 & 63];
    snprintf(ws_id, sizeof ws_id, "%s-%05d", group->name, agent->number);
    snprintf(path, sizeof path, group->kind->path, group->name, ws_id);
    const char *protocol = group->kind->protocol ? group->kind->protocol : "";
    int size = snprintf(head, sizeof head,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %sA==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                        path, group->port, key, *protocol ? "Sec-WebSocket-Protocol: " : "", protocol,
                        *protocol ? "\r\n" : "");
    if (send(agent->fd, head, size, MSG_NOSIGNAL) == size) listen_for(agent, EPOLL_CTL_MOD, EPOLLIN);
    else lost(agent);
}

void enter(struct agent *agent) {
    struct group *group = agent->group;
    agent->in = true;
    agent->failures = 0;
    opening--;
    if (++group->opened == group->count) group->full_at = now();
}

/* Look for the end of the answer to the handshake, and return how many bytes it has; 0 if it is not there yet. */
static size_t upgrade(struct agent *agent, size_t size) {
    char *end = memmem(input, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(input, "HTTP/1.1 101", 12)) {
        lost(agent);
        return 0;
    }
    agent->upgraded = true;
    if (agent->group->kind->greet) agent->group->kind->greet(agent);
    else enter(agent);
    if (agent->group->kind->stalls) listen_for(agent, EPOLL_CTL_MOD, 0);
    return end + 4 - input;
}

/* Frames */

void note(struct agent *agent, long seq, long n) {
    struct group *group = agent->group;
    group->disorder += seq <= agent->last;
    agent->last = seq;
    if (seq <= agent->highest) {
        /* If it was none that had come before, then one is missing in the number of those that were received. */
        agent->again++;
        return;
    }
    agent->highest = seq;
    agent->received++;
    group->received++;
    group->last_at = arrived;
    struct arrival arrival = {n, arrived};
    if (group->watched) add(&group->arrivals, &arrival, sizeof arrival);
}

static void take_frame(struct agent *agent, int opcode, char *data, size_t size) {
    struct group *group = agent->group;
    if (opcode == PING) {
        group->pings++;
        say(agent, PONG, data, size);
    } else if (opcode == CLOSE) {
        lost(agent);
    } else if (opcode < CLOSE) {
        group->bytes += size;
        if (group->kind->take) group->kind->take(agent, data, size);
    }
}

/* Take all whole frames, and return where the first begins that is not. */
static size_t take_frames(struct agent *agent, size_t place, size_t end) {
    while (agent->fd >= 0 && end - place >= 2) {
        const unsigned char *head = (unsigned char *)input + place;
        size_t size = head[1], start = place + 2, more = size == 126 ? 2 : size == 127 ? 8 : 0;
        if (end - start < more) break;
        if (more) size = 0;
        for (size_t i = 0; i < more; i++) size = size << 8 | head[2 + i];
        start += more;
        errno = 0;
        if (size > LARGEST_FRAME - 10) fail("a frame that is too large");
        if (end - start < size) break;
        place = start + size;
        take_frame(agent, head[0] & 15, input + start, size);
    }
    return place;
}

static void receive(struct agent *agent) {
    const struct kind *kind = agent->group->kind;
    size_t size = agent->rest.size, place = 0;
    if (size) memcpy(input, agent->rest.at, size);
    /* One that will not read takes no more than the answer to its handshake. */
    ssize_t more = recv(agent->fd, input + size, kind->stalls ? 512 : ONE_READ, 0);
    if (more < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (more <= 0) {
        lost(agent);
        return;
    }
    arrived = now();
    size += more;
    input[size] = 0;
    if (!agent->upgraded) place = upgrade(agent, size);
    if (agent->upgraded && !kind->stalls) {
        place = take_frames(agent, place, size);
        if (kind->done && agent->fd >= 0) kind->done(agent);
    }
    flush(agent);
    if (agent->fd >= 0) keep(&agent->rest, input + place, size - place);
}

static void happened(struct agent *agent, uint32_t events) {
    if (agent->fd < 0) return;
    if (events & (EPOLLHUP | EPOLLERR) && (agent->group->kind->stalls || !agent->upgraded)) lost(agent);
    else if (events & EPOLLOUT) ask(agent);
    else receive(agent);
}

/* Commands */

static const struct kind *kind_of(const char *name) {
    for (const struct kind *kind = kinds; kind->name; kind++)
        if (!strcmp(kind->name, name)) return kind;
    fprintf(stderr, "agents: no such kind: %s\n", name);
    exit(1);
}

static void open_group(struct group *group) {
    group->next = groups;
    groups = group;
    group->agents = calloc(group->count, sizeof *group->agents);
    if (!group->agents) fail("no memory");
    double due = now();
    for (int i = 0; i < group->count; i++) {
        group->agents[i] = (struct agent){.group = group, .number = i, .fd = -1};
        wait_until(&group->agents[i], due);
    }
}

/* Its memory stays, because some of it may still wait, or be in what epoll has returned. */
static void close_group(struct group *group) {
    group->returns = false;
    group->closed = true;
    for (int i = 0; i < group->count; i++) lost(&group->agents[i]);
    struct group **link = &groups;
    while (*link != group) link = &(*link)->next;
    *link = group->next;
}

static void print_each(const struct group *group) {
    for (int i = 0; i < group->count; i++) {
        const struct agent *one = &group->agents[i];
        printf("%s[\"%s-%05d\",%ld,%ld,%ld]", i ? "," : "[", group->name, i, one->received, one->again, one->highest);
    }
    printf("%s\n", group->count ? "]" : "[]");
}

static void print_arrivals(struct group *group) {
    const struct arrival *arrivals = (struct arrival *)group->arrivals.at;
    size_t count = group->arrivals.size / sizeof *arrivals;
    for (size_t i = 0; i < count; i++) printf("%s[%ld,%.6f]", i ? "," : "[", arrivals[i].n, arrivals[i].at);
    printf("%s\n", count ? "]" : "[]");
    group->arrivals.size = 0;
    group->watched = false;
}

static void command(char *line) {
    char word[16], name[64], kind[16];
    int count, port, returns;
    int words = sscanf(line, "%15s %63s %15s %d %d %d", word, name, kind, &count, &port, &returns);
    struct group *group = groups;
    while (group && words >= 2 && strcmp(group->name, name)) group = group->next;
    if (words == 6 && !strcmp(word, "open") && !group && (group = calloc(1, sizeof *group))) {
        strcpy(group->name, name);
        group->kind = kind_of(kind);
        group->count = count;
        group->port = port;
        group->returns = returns;
        open_group(group);
        printf("null\n");
    } else if (words != 2 || !group) {
        fprintf(stderr, "agents: cannot be done: %s\n", line);
        exit(1);
    } else if (!strcmp(word, "state")) {
        printf("{\"opened\":%ld,\"lost\":%ld,\"received\":%ld,\"disorder\":%ld,\"pings\":%ld,\"bytes\":%ld,"
               "\"full_at\":%.6f,\"last_at\":%.6f}\n",
               group->opened, group->lost, group->received, group->disorder, group->pings, group->bytes,
               group->full_at, group->last_at);
    } else if (!strcmp(word, "each")) {
        print_each(group);
    } else if (!strcmp(word, "arrivals")) {
        print_arrivals(group);
    } else {
        if (!strcmp(word, "close")) close_group(group);
        else group->watched = true;
        printf("null\n");
    }
    fflush(stdout);
}

/* Read commands, and return whether more may come. */
static bool commands(void) {
    static char lines[4096];
    static size_t size;
    ssize_t more = read(0, lines + size, sizeof lines - 1 - size);
    if (more <= 0) return false;
    size += more;
    lines[size] = 0;
    char *line = lines;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        command(line);
    }
    size -= line - lines;
    memmove(lines, line, size);
    return true;
}

int main(void) {
    struct epoll_event events[256], from_stdin = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poll_fd < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &from_stdin)) fail("epoll");
    for (bool more = true; more;) {
        double time = now();
        while (waiting_count && waiting[0].due <= time && opening < OPENING_AT_ONCE) {
            struct agent *agent = next_waiting();
            if (!agent->group->closed) start(agent);
        }
        double delay = 1.0;
        if (waiting_count && opening < OPENING_AT_ONCE) delay = waiting[0].due - time;
        int found = epoll_wait(poll_fd, events, 256, delay < 0 ? 0 : delay < 1 ? (int)(delay * 1000) + 1 : 1000);
        for (int i = 0; i < found && more; i++) {
            if (!events[i].data.ptr) more = commands();
            else happened(events[i].data.ptr, events[i].events);
        }
    }
    return 0;
}
