/* How agents speak, by the name of their kind.

   `pong` answers Pings, `ack` confirms explicitly as well, `mute` asks for explicit acks and never gives one, and
   `stalled` never reads after its handshake and has a small receive buffer. */

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

const struct kind kinds[] = {
    {.name = "pong", .path = "/ws?agent=%s&ws_id=%s", .take = take_message},
    {.name = "ack", .path = "/ws?agent=%s&ws_id=%s&ack=explicit", .take = take_message, .done = acknowledge},
    {.name = "mute", .path = "/ws?agent=%s&ws_id=%s&ack=explicit", .take = take_message},
    {.name = "stalled", .path = "/ws?agent=%s&ws_id=%s", .stalls = true},
    {0},
};
