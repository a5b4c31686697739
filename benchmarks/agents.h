/* What agents.c, which moves bytes, and kinds.c, which knows what they mean, know of each other. */

#ifndef AGENTS_H
#define AGENTS_H

#include <stdbool.h>
#include <stddef.h>

enum { MORE = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* Bytes that grow. */
struct bytes {
    char *at;
    size_t size, room;
};

struct agent;

/* How an agent speaks. What is NULL is not done. */
struct kind {
    const char *name;
    /* The path of the handshake, with up to two %s: the group's name and the ws_id. */
    const char *path;
    const char *protocol; /* of Sec-WebSocket-Protocol */
    bool stalls;          /* never reads after its handshake */
    /* After the handshake. Without it, the agent is in; with it, it calls `enter` when it is. */
    void (*greet)(struct agent *);
    /* A frame with data. Its bytes may be changed, and end with the call. */
    void (*take)(struct agent *, char *data, size_t size);
    /* After all frames that came in one read. */
    void (*done)(struct agent *);
};

/* Agents of one kind. They come back after a lost socket if `returns` is set. */
struct group {
    char name[64];
    const struct kind *kind;
    int count, port;
    bool returns, closed;
    long opened, lost, disorder, received, pings, bytes;
    double full_at, last_at;
    bool watched;
    struct bytes arrivals; /* of struct arrival */
    struct agent *agents;
    struct group *next;
};

struct arrival {
    long n;
    double at;
};

/* One agent, and what it has received. */
struct agent {
    struct group *group;
    int number, fd; /* fd is -1 without a socket */
    bool upgraded, in;
    int failures;
    struct bytes rest;   /* the beginning of a frame, or of the answer to the handshake */
    struct bytes stream; /* for protocols whose messages do not end where frames do */
    long last, highest, received, again, ack;
};

/* All of them; the last has no name. */
extern const struct kind kinds[];

/* Count the agent as connected. */
void enter(struct agent *agent);

/* Note a message: `seq` rises, `n` is for the sender to know it by. */
void note(struct agent *agent, long seq, long n);

/* Send a frame, together with the others that answer the same read. */
void say(struct agent *agent, int opcode, const char *data, size_t size);

/* Keep a copy of these bytes instead of what there is. */
void keep(struct bytes *bytes, const char *data, size_t size);

/* Add bytes at the end. */
void add(struct bytes *bytes, const void *data, size_t size);

/* The number behind the first `name` in these bytes; -1 without one. */
long number_after(const char *name, const char *data, size_t size);

#endif
