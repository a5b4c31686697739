"""Whether anything was lost, while a soak runs and at its end. It knows only what agents, senders and the ledger say.

The rules, each with the word by which a complaint begins:

* LOST: every committed message was read by its agent, whole. It is confirmed at the end, or set aside by a rejection.
* EARLY: the ledger calls a message delivered only after its agent has read it and has given the receipt for it, on a
  socket whose registration was not void then. A message that no agent has read is lost.
* ORDER: on a socket the seqs ascend. What a connection reads for the first time is above all that it has read.
* AGAIN: a message that comes again has the same seq and msg_id, and was not confirmed before its socket was opened.
* ASIDE: only what an agent has rejected, or has refused three times, is set aside, and that is not delivered.
* GHOST: what is in the ledger or was read was sent, and to this agent; or its sender does not know whether it was.
* GONE: only what is confirmed is deleted.
* CUT: the gateway says that an operator has disconnected a connection only if a command has.
* SWEPT: a connection is called lost only if it has no open socket, and was not sent away within the timeout.
* WRONG: an agent got a frame that it should not get.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable
from typing import Optional

from tests.soak.cast import BY_GATEWAY, SLOW
from tests.soak.records import (
    ASIDE,
    BOTH,
    DELIVERED,
    PENDING,
    Link,
    Recipient,
    Registration,
    Row,
    Sent,
    Swept,
    Watched,
)

GRAIN = 0.001
"""Seconds by which two processes may differ when they write down the same moment."""

MOST_REFUSALS = 3
_STORIES = 100


class Judge:
    """Takes what is known as it comes.

    Attributes:
        complaints: what is wrong.
        concerned: the connections that it is about.
        read: messages that were read for the first time.
        again: those that came again.
        aside: those that were set aside.
        unsure: those that were read, and whose sender does not know that they were committed.
        sockets: those that were greeted.
        codes: how many of them the gateway has closed, by code.
        greeted: the connections that have an open socket.
        sent: what was sent, by key.
        addressed: the messages that this was: one for each recipient.
        clock: everything that agents did before this time is known.
    """

    def __init__(self, ws_ids: Iterable[str], watched: Watched) -> None:
        self.complaints: list[str] = []
        self.concerned: list[str] = []
        self.read = 0
        self.again = 0
        self.aside = 0
        self.unsure = 0
        self.sockets = 0
        self.codes: Counter[str] = Counter()
        self.clock = 0.0
        self.greeted: set[str] = set()
        self.sent: dict[str, Sent] = {}
        self.addressed = 0
        self._tried: set[str] = set()
        self._watched = watched
        self._recipients = {ws_id: Recipient() for ws_id in ws_ids}
        self._unproven: list[Row] = []
        self._blamed: set[Optional[int]] = set()

    @property
    def doubled(self) -> list[str]:
        """The connections that have more than one open socket."""
        return [ws_id for ws_id, recipient in self._recipients.items() if len(recipient.open_links()) > 1]

    def times_of(self, ws_id: str, keys: Container[str]) -> list[float]:
        """Return when a connection has read some messages, in the order in which it read them."""
        recipient = self._recipients[ws_id]
        seqs = {seq for key, (seq, _) in recipient.read.items() if key in keys}
        return [
            at for link in recipient.links.values() for seq, at in zip(link.seqs, link.times) if seq in seqs
        ]

    # What comes in

    def take_sent(self, sent: Sent) -> None:
        """Take what a sender has committed."""
        self.sent[sent.key] = sent
        self.addressed += len(sent.to)

    def take_tried(self, key: str) -> None:
        """A sender is about to send one. Without `take_sent`, it does not know whether that was committed."""
        self._tried.add(key)

    def take_registration(self, ws_id: str, begun: float, ended: float) -> None:
        """A command has registered a connection again, in this time."""
        self._recipients[ws_id].by_commands.append(Registration(begun, ended, "a command"))

    def take_disconnection(self, ws_id: str, begun: float, ended: float) -> None:
        """A command has disconnected a connection, in this time."""
        self._recipients[ws_id].disconnected.append((begun, ended))

    def take_swept(self, swept: Swept) -> None:
        """A gateway has called a connection lost. Slow agents are left out: they see late that a socket has ended."""
        if not swept.ws_id.startswith(SLOW):
            self._recipients[swept.ws_id].swept.append(swept.at)

    def take_line(self, line: str) -> None:
        """A line of the agents' journal."""
        moment, word, *fields = line.split("\t")
        at = float(moment)
        if word == "clock":
            self.clock = at
            return
        if word == "asks":
            self.take_tried(fields[0])
            return
        if word == "sent":
            key, to, msg_id = fields
            self.take_sent(Sent(key, at, [to], msg_id, None))
            return
        ws_id, number, *rest = fields
        recipient = self._recipients[ws_id]
        if word == "begin":
            recipient.links[int(number)] = Link(int(number), at)
            return
        link = recipient.links[int(number)]
        if word == "message":
            self._take_message(ws_id, link, at, int(rest[0]), rest[1], rest[2], rest[3] == "whole")
        elif word == "receipt":
            link.receipts.append(int(rest[0]))
            link.receipt_times.append(at)
        elif word == "greeted":
            link.greeted = at
            self.greeted.add(ws_id)
            self.sockets += 1
        elif word == "reject":
            link.rejected[int(rest[0])] = at
        elif word == "deaf":
            link.deaf = True
        elif word == "refused":
            link.refused = int(rest[0])
        elif word == "closed":
            link.closed = f"ended at {at:.3f}: {rest[0]}"
            _, by_gateway, code = rest[0].partition(BY_GATEWAY)
            self.codes.update([code] if by_gateway else [])
            link.closed_at, link.closed_with = at, code
            if not recipient.open_links():
                self.greeted.discard(ws_id)
        else:
            self._complain(f"WRONG: {ws_id}, socket {number} at {at:.3f}: {rest[0]}")

    def _take_message(
        self, ws_id: str, link: Link, at: float, seq: int, msg_id: str, key: str, whole: bool
    ) -> None:
        recipient = self._recipients[ws_id]
        if not whole:
            self._complain(f"LOST: what {ws_id} has read as {seq} ({key}) is not whole", ws_id, seq)
        if link.seqs and seq <= link.seqs[-1]:
            self._complain(f"ORDER: {ws_id} has read {seq} after {link.seqs[-1]}", ws_id, seq)
            return
        link.seqs.append(seq)
        link.times.append(at)
        known = recipient.read.get(key)
        if known is None:
            self.read += 1
            recipient.read[key] = seq, msg_id
            if seq <= recipient.highest:
                late = f"ORDER: {ws_id} has read {seq} for the first time after {recipient.highest}"
                self._complain(late, ws_id, seq)
            recipient.highest = max(recipient.highest, seq)
            return
        self.again += 1
        if known != (seq, msg_id):
            self._complain(f"AGAIN: {key} came to {ws_id} as {known}, then as {(seq, msg_id)}", ws_id, seq)
        if self._watched.noticed.get(seq, math.inf) < link.begun:
            self._complain(f"AGAIN: {seq} came to {ws_id} again after it was confirmed", ws_id, seq)

    def look(self) -> None:
        """Look at the ledger, and judge what is settled."""
        settled, gone = self._watched.look()
        for row in gone:
            self._complain(f"GONE: {row} was deleted and was not confirmed", row.recipient, row.seq)
        self._unproven += settled
        due = [row for row in self._unproven if row.at < self.clock]
        self._unproven = [row for row in self._unproven if row.at >= self.clock]
        for row in due:
            self._prove(row)

    # The rules

    def _prove(self, row: Row) -> None:
        """Judge a message that is settled."""
        recipient = self._recipients.get(row.recipient)
        if recipient is None:
            self._complain(f"GHOST: {row} is for nobody here")
        elif row.state == DELIVERED:
            why = _why_not_confirmed(recipient, row)
            if why is not None:
                self._complain(f"EARLY: {row} is called delivered, but {why}", row.recipient, row.seq)
        elif row.state == BOTH:
            self._complain(f"ASIDE: {row} is both", row.recipient, row.seq)
        elif _was_rejected(recipient, row):
            self.aside += 1
        else:
            self._complain(f"ASIDE: {row} was set aside, and not rejected", row.recipient, row.seq)

    def finish(self) -> None:
        """Judge everything, when nothing will come any more."""
        self.look()
        # All of them again: of a command, only its end says when it has registered a connection.
        self._unproven, self.aside = [], 0
        for row in self._watched.rows.values():
            if row.state != PENDING and row.seq not in self._blamed:
                self._prove(row)
        self._judge_all_sent()
        for ws_id, recipient in self._recipients.items():
            for key, (seq, _) in recipient.read.items():
                if key in self._tried and key not in self.sent:
                    self.unsure += 1
                elif key not in self.sent or ws_id not in self.sent[key].to:
                    self._complain(f"GHOST: {ws_id} has read {key}, which was not sent to it", ws_id, seq)
            for link in filter(recipient.is_cut_off_without_cause, recipient.links.values()):
                self._complain(f"CUT: {ws_id}, socket {link.number}: no command disconnected it", ws_id)
            for at in recipient.swept:
                if recipient.is_swept_without_cause(at):
                    self._complain(f"SWEPT: {ws_id} was called lost at {at:.3f}", ws_id)
        self._judge_table()

    def _judge_all_sent(self) -> None:
        """Judge every message that was sent, and what is in the ledger besides."""
        rows = self._watched.rows.values()
        of_message = {row.msg_id: row for row in rows}
        of_broadcast = {(row.broadcast_id, row.recipient): row for row in rows if row.broadcast_id}
        sent_rows: set[int] = set()
        for sent in self.sent.values():
            for ws_id in sent.to:
                row = of_message.get(sent.msg_id or "") or of_broadcast.get((sent.broadcast_id or "", ws_id))
                self._judge_sent(sent, ws_id, row)
                if row is not None:
                    sent_rows.add(row.seq)
        unsure = {
            recipient.read[key][0]
            for recipient in self._recipients.values()
            for key in recipient.read.keys() & self._tried - self.sent.keys()
        }
        for seq in self._watched.rows.keys() - sent_rows - unsure:
            self._complain(
                f"GHOST: {self._watched.rows[seq]} is in the ledger, but no sender has committed it"
            )

    def _judge_sent(self, sent: Sent, ws_id: str, row: Optional[Row]) -> None:
        read = self._recipients[ws_id].read.get(sent.key)
        what = f"{sent.key}, sent to {ws_id} at {sent.at:.3f}"
        if row is None:
            self._complain(f"LOST: {what}, was never in the ledger; read: {read}", ws_id)
        elif read is None:
            self._complain(f"LOST: {what}, was not read: {row}", ws_id, row.seq)
        elif read != (row.seq, row.msg_id):
            self._complain(f"LOST: {what}, was read as {read}, and is {row}", ws_id, row.seq)
        elif row.state == PENDING:
            self._complain(f"LOST: {what}, is still pending: {row}", ws_id, row.seq)

    def _judge_table(self) -> None:
        """Judge what is left in the ledger against what was seen there."""
        there = {row.seq: row for row in self._watched.all_above(0)}
        for seq, row in self._watched.rows.items():
            now = there.get(seq)
            if now is None and row.state == ASIDE:
                self._complain(f"GONE: {row} was deleted, and was set aside", row.recipient, seq)
            elif now is not None and (now.state, now.at) != (row.state, row.at):
                self._complain(f"GONE: {row} has become {now}", row.recipient, seq)

    # What to say

    def _complain(self, what: str, ws_id: Optional[str] = None, seq: Optional[int] = None) -> None:
        story = []
        self._blamed.add(seq)
        if ws_id in self._recipients and len(self.complaints) < _STORIES:
            story = _story(self._recipients[ws_id], seq)
            self.concerned.append(ws_id)
        self.complaints.append("\n    ".join([what, *story]))


def _story(recipient: Recipient, seq: Optional[int]) -> list[str]:
    """What the last sockets of a connection have read, and what each has done with a message."""
    lines = []
    for link in [link for link in recipient.links.values() if link.greeted < math.inf][-6:]:
        line = f"socket {link.number}: begun {link.begun:.3f}, greeted {link.greeted:.3f}"
        if link.seqs:
            line += f", read {link.seqs[0]} to {link.seqs[-1]}"
        if link.receipts:
            line += f", confirmed to {link.receipts[-1]} at {link.receipt_times[-1]:.3f}"
        if seq is not None:
            line += f"; this one read: {_time(link.read_at(seq))}, confirmed: {_time(link.confirmed_at(seq))}"
            line += f", rejected: {_time(link.rejected.get(seq))}"
        lines.append(f"{line}; {link.closed}")
    return lines + [f"registered: {each}" for each in recipient.by_commands[-3:]]


def _time(at: Optional[float]) -> str:
    return "no" if at is None else f"{at:.6f}"


def _why_not_confirmed(recipient: Recipient, row: Row) -> Optional[str]:
    """Why a message could not be called delivered when it was; None if it could."""
    why = "no agent has read it"
    registrations = recipient.registrations()
    for link in reversed(recipient.links.values()):
        if (read_at := link.read_at(row.seq)) is None:
            continue
        confirmed_at = link.confirmed_at(row.seq)
        if read_at > row.at + GRAIN:
            why = f"was read only at {read_at:.6f}"
        elif confirmed_at is None:
            why = f"socket {link.number} has read it and has not confirmed it"
        elif confirmed_at > row.at + GRAIN:
            why = f"socket {link.number} has confirmed it only at {confirmed_at:.6f}"
        else:
            later = [each for each in registrations if each.begun > link.greeted and each.ended < row.at]
            if not later:
                return None
            why = f"the registration of socket {link.number} was void then: {later[-1]}"
    return why


def _was_rejected(recipient: Recipient, row: Row) -> bool:
    """Whether an agent has rejected a message before it was set aside, or has closed on it often enough."""
    links = recipient.links.values()
    if row.refusals >= MOST_REFUSALS:
        return sum(link.refused is not None for link in links) >= MOST_REFUSALS
    return any(link.rejected.get(row.seq, math.inf) <= row.at + GRAIN for link in links)
