/* How agents speak, by the name of their kind.

   `pong` answers Pings, `ack` confirms explicitly as well, `mute` asks for explicit acks and never gives one, and
   `stalled` never reads after its handshake and has a small receive buffer. The others are clients of other servers,
   for `make bench ROWS=peers`: the least of each protocol that receives what is sent to all, and confirms it where
   there is a way. Every message of theirs has `{"n":N,` in it, with N rising. */

#define _GNU_SOURCE

#include "agents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A frame of the gateway's. */
static void take_message(struct agent *agent, char *data, size_t size) {
    static const char head[] = "{\"type\":\"message\",\"seq\":";
    if (size < sizeof head || memcmp(data, head, sizeof head - 1)) return;
    agent->ack = strtol(data + sizeof head - 1, NULL, 10);
    note(agent, agent->ack, agent->group->watched ? number_after("\"n\":", data, size) : 0);
}

/* One ack for everything that came in one read. */
static void acknowledge(struct agent *agent) {
    char text[64];
    if (agent->ack) say(agent, TEXT, text, snprintf(text, sizeof text, "{\"type\":\"ack\",\"seq\":%ld}", agent->ack));
    agent->ack = 0;
}

/* A number of a message that rises is also what it is known by. */
static void note_number(struct agent *agent, const char *data, size_t size) {
    long n = number_after("\"n\":", data, size);
    if (n >= 0) note(agent, n + 1, n);
}

static void in_at_last(struct agent *agent) {
    if (!agent->in) enter(agent);
}

static void stop(const char *why, const char *data, size_t size) {
    fprintf(stderr, "agents: %s: %.*s\n", why, (int)size, data);
    exit(1);
}

/* For protocols whose messages do not end where frames do: `one` takes the first message, and returns its size, or 0 if
   it is not whole yet. */
static void take_stream(struct agent *agent, char *data, size_t size,
                        size_t (*one)(struct agent *, const char *, size_t)) {
    struct bytes *stream = &agent->stream;
    add(stream, data, size);
    size_t place = 0, taken;
    while (place < stream->size && (taken = one(agent, stream->at + place, stream->size - place))) place += taken;
    if (agent->fd < 0) return;
    stream->size -= place;
    memmove(stream->at, stream->at + place, stream->size);
}

/* Nchan: a message is the text of a frame. */
static void take_nchan(struct agent *agent, char *data, size_t size) { note_number(agent, data, size); }

/* Somebody else speaks first. */
static void wait_for_it(struct agent *agent) { (void)agent; }

/* Socket.IO 5 on Engine.IO 4: a digit or two say what a frame is. */
static void take_socketio(struct agent *agent, char *data, size_t size) {
    if (size >= 2 && !memcmp(data, "42", 2)) note_number(agent, data, size);
    else if (size >= 2 && !memcmp(data, "40", 2)) in_at_last(agent);
    else if (*data == '0') say(agent, TEXT, "40", 2);
    else if (*data == '2') say(agent, TEXT, "3", 1);
    else stop("Socket.IO said", data, size);
}

/* MQTT 3.1.1 */

enum { CONNACK = 2, PUBLISH = 3, SUBACK = 9 };

static void greet_mqtt(struct agent *agent) {
    char packet[128], name[80];
    int size = snprintf(name, sizeof name, "%s-%05d", agent->group->name, agent->number);
    /* CONNECT without the flag of a clean session and without keep-alive: its length, the protocol, and the name. */
    memcpy(packet, "\x10\0\0\4MQTT\4\0\0\0\0", 13);
    packet[1] = 12 + size;
    packet[13] = size;
    memcpy(packet + 14, name, size);
    say(agent, BINARY, packet, 14 + size);
}

static size_t one_mqtt(struct agent *agent, const char *data, size_t size) {
    size_t length = 0, start = 1, shift = 0;
    do {
        if (start >= size) return 0;
        length |= (size_t)(data[start] & 127) << shift;
        shift += 7;
    } while (data[start++] & 128);
    if (size - start < length) return 0;
    const char *body = data + start;
    int what = (unsigned char)*data >> 4;
    if (what == PUBLISH) {
        size_t topic = (unsigned char)body[0] << 8 | (unsigned char)body[1];
        char confirm[4] = {0x40, 2, body[2 + topic], body[3 + topic]};
        note_number(agent, body + 4 + topic, length - 4 - topic);
        say(agent, BINARY, confirm, sizeof confirm);
    } else if (what == CONNACK && body[1] == 0) {
        /* SUBSCRIBE, packet 1, to the topic `load` with QoS 1. */
        say(agent, BINARY, "\x82\x09\0\1\0\4load\1", 11);
    } else if (what == SUBACK && body[2] == 1) {
        in_at_last(agent);
    } else {
        stop("MQTT refused something", "", 0);
    }
    return start + length;
}

static void take_mqtt(struct agent *agent, char *data, size_t size) { take_stream(agent, data, size, one_mqtt); }

/* NATS: a durable consumer of the stream `load` for each agent, with explicit acks. What has been confirmed is kept
   in files unless told otherwise. */

static void greet_nats(struct agent *agent) {
    char name[80], text[1024], config[512];
    bool memory = !strcmp(agent->group->kind->name, "nats-memory");
    snprintf(name, sizeof name, "%s-%05d", agent->group->name, agent->number);
    int size = snprintf(config, sizeof config,
                        "{\"stream_name\":\"load\",\"config\":{\"durable_name\":\"%s\",\"deliver_subject\":\"to.%s\","
                        "\"deliver_policy\":\"new\",\"ack_policy\":\"explicit\"%s}}",
                        name, name, memory ? ",\"mem_storage\":true" : "");
    size = snprintf(text, sizeof text,
                    "CONNECT {\"verbose\":false}\r\nSUB to.%s 1\r\nSUB in.%s 2\r\n"
                    "PUB $JS.API.CONSUMER.DURABLE.CREATE.load.%s in.%s %d\r\n%s\r\n",
                    name, name, name, name, size, config);
    say(agent, BINARY, text, size);
}

static size_t one_nats(struct agent *agent, const char *data, size_t size) {
    const char *end = memmem(data, size, "\r\n", 2);
    if (!end) return 0;
    char line[256] = "", back[160], text[200];
    size_t start = end + 2 - data, length;
    int number;
    memcpy(line, data, start < sizeof line ? start : sizeof line - 1);
    if (sscanf(line, "MSG %*s %d %159s %zu", &number, back, &length) == 3) {
        if (size < start + length + 2) return 0;
        note_number(agent, data + start, length);
        say(agent, BINARY, text, snprintf(text, sizeof text, "PUB %s 4\r\n+ACK\r\n", back));
        return start + length + 2;
    }
    if (sscanf(line, "MSG %*s %d %zu", &number, &length) == 2) {
        if (size < start + length + 2) return 0;
        if (memmem(data + start, length, "\"error\"", 7)) stop("NATS refused a consumer", data + start, length);
        in_at_last(agent);
        return start + length + 2;
    }
    if (!strncmp(line, "PING", 4)) say(agent, BINARY, "PONG\r\n", 6);
    else if (strncmp(line, "INFO", 4) && strncmp(line, "PONG", 4)) stop("NATS said", line, strlen(line));
    return start;
}

static void take_nats(struct agent *agent, char *data, size_t size) { take_stream(agent, data, size, one_nats); }

const struct kind kinds[] = {
    {.name = "pong", .path = "/ws?agent=%s&ws_id=%s", .take = take_message},
    {.name = "ack", .path = "/ws?agent=%s&ws_id=%s&ack=explicit", .take = take_message, .done = acknowledge},
    {.name = "mute", .path = "/ws?agent=%s&ws_id=%s&ack=explicit", .take = take_message},
    {.name = "stalled", .path = "/ws?agent=%s&ws_id=%s", .stalls = true},
    {.name = "nchan", .path = "/sub", .take = take_nchan},
    {.name = "socketio", .path = "/socket.io/?EIO=4&transport=websocket", .greet = wait_for_it, .take = take_socketio},
    {.name = "mqtt", .path = "/mqtt", .protocol = "mqtt", .greet = greet_mqtt, .take = take_mqtt},
    {.name = "nats", .path = "/", .greet = greet_nats, .take = take_nats},
    {.name = "nats-memory", .path = "/", .greet = greet_nats, .take = take_nats},
    {0},
};
