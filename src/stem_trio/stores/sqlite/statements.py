"""All SQL there is, except for the schema.

Batches travel as one JSON parameter and come back as one JSON value: a statement is then one call into SQLite whatever
the size of the batch, during which other threads run. Taking row by row, the thread would have to win back Python's
lock for each, from a trio thread that is busy. In ``json_each`` aliased ``e``, ``e.key`` is the position in the batch.

Places are written as numbers: 0 ready, 1 delayed, 2 leased, 3 dead. Parameters are called p1, p2 and so on, for which
`bind` gives the values.
"""

from __future__ import annotations

from typing import Any, Final

_NAMES: Final = ("p1", "p2", "p3", "p4", "p5")


def bind(*parameters: Any) -> dict[str, Any]:
    """Values for the parameters of a statement, in the order of their numbers."""
    return dict(zip(_NAMES, parameters, strict=False))


# --- transactions -------------------------------------------------------------------------------------------------

BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
BEGIN_READING: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT job"
RELEASE: Final = "RELEASE job"
ROLLBACK_TO: Final = "ROLLBACK TO job"

READ_SEQUENCE: Final = "SELECT sequence FROM state"
SET_STATE: Final = "UPDATE state SET sequence = :p1, time = max(time, :p2), wall = :p3"
READ_CLOCK: Final = "SELECT boot, time_offset, lease_offset, time, wall FROM state"
SET_CLOCK: Final = "UPDATE state SET boot = :p1, time_offset = :p2, lease_offset = :p3, time = :p4, wall = :p5"
DATA_VERSION: Final = "PRAGMA data_version"

# --- opening ------------------------------------------------------------------------------------------------------

READ_APPLICATION: Final = "PRAGMA application_id"
SET_APPLICATION: Final = "PRAGMA application_id = {:d}"
READ_VERSION: Final = "PRAGMA user_version"
SET_VERSION: Final = "PRAGMA user_version = {:d}"
COUNT_OBJECTS: Final = "SELECT count(*) FROM sqlite_master"
# Before anything is written: it cannot be chosen later.
AUTO_VACUUM: Final = "PRAGMA auto_vacuum = INCREMENTAL"
WRITE_AHEAD_LOG: Final = "PRAGMA journal_mode = WAL"
SETTINGS: Final = (
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
)
SET_SYNCHRONOUS: Final = "PRAGMA synchronous = {}"
# On macOS a disk is only waited for if this is on; elsewhere it changes nothing.
WAIT_FOR_DISK: Final = "PRAGMA fullfsync = ON"
SET_BUSY_TIMEOUT: Final = "PRAGMA busy_timeout = {:d}"

# --- the passing of time ------------------------------------------------------------------------------------------

# Whether a delayed task is due, a lease has ended, or a dead letter is old; an index leads to each.
IS_DUE: Final = """
SELECT EXISTS (SELECT 1 FROM tasks WHERE queue = :p1 AND place = 1 AND at <= :p2),
       EXISTS (SELECT 1 FROM tasks WHERE queue = :p1 AND place = 2 AND at <= :p3),
       EXISTS (SELECT 1 FROM tasks WHERE queue = :p1 AND place = 3 AND at <= :p4)
"""
PROMOTE: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, turn = :p3 + due.position
FROM (SELECT number, row_number() OVER (ORDER BY at, turn) AS position FROM tasks
      WHERE queue = :p1 AND place = 1 AND at <= :p2 ORDER BY at, turn LIMIT :p4) AS due
WHERE tasks.number = due.number
"""
RECLAIM: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, strikes = strikes + 1, token = 0
WHERE number IN (SELECT number FROM tasks WHERE queue = :p1 AND place = 2 AND at <= :p2 ORDER BY at LIMIT :p3)
"""
FORGET_DEAD: Final = """
DELETE FROM tasks
WHERE number IN (SELECT number FROM tasks WHERE queue = :p1 AND place = 3 AND at <= :p2 ORDER BY at LIMIT :p3)
"""
# Of dead letters beyond the newest :p2.
TRIM_DEAD: Final = """
DELETE FROM tasks
WHERE number IN (
    SELECT number FROM tasks WHERE queue = :p1 AND place = 3 ORDER BY at DESC, turn DESC LIMIT :p3 OFFSET :p2)
"""
# When something happens next by itself.
NEXT_DUE: Final = """
SELECT (SELECT min(at) FROM tasks WHERE queue = :p1 AND place = 1),
       (SELECT min(at) FROM tasks WHERE queue = :p1 AND place = 2)
"""

# --- tasks --------------------------------------------------------------------------------------------------------

# Rows: queue, id, priority, length of the lease, envelope.
PUBLISH: Final = """
INSERT INTO tasks (queue, id, place, at, turn, priority, lease, envelope)
SELECT json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'), :p2,
       iif(:p2 = 0, 9 - json_extract(e.value, '$[2]'), :p3), :p4 + e.key, json_extract(e.value, '$[2]'),
       json_extract(e.value, '$[3]'), json_extract(e.value, '$[4]')
FROM json_each(:p1) AS e WHERE true
ON CONFLICT DO NOTHING
"""
# Which rows of a batch that began at turn :p2 were put in.
FIND_PUBLISHED: Final = """
SELECT json_group_array(e.key) FROM json_each(:p1) AS e CROSS JOIN tasks AS t
ON t.queue = json_extract(e.value, '$[0]') AND t.id = json_extract(e.value, '$[1]') AND t.turn = :p2 + e.key
"""
FIND_READY: Final = """
SELECT json_group_array(json_array(number, attempt, deliveries, strikes, revoked, lease, id, queue)),
       json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = :p1 AND place = 0 ORDER BY at, turn LIMIT :p2)
"""
# The same without envelopes, of which a claim from several queues would read more than it takes.
FIND_READY_NUMBERS: Final = """
SELECT json_group_array(json_array(at, turn, number))
FROM (SELECT at, turn, number FROM tasks WHERE queue = :p1 AND place = 0 ORDER BY at, turn LIMIT :p2)
"""
FIND_NUMBERS: Final = """
SELECT json_group_array(json_array(t.number, t.attempt, t.deliveries, t.strikes, t.revoked, t.lease, t.id, t.queue)),
       json_group_array(t.envelope)
FROM json_each(:p1) AS e CROSS JOIN tasks AS t ON t.number = e.value
"""
# In the order of the batch, from token :p3 on.
LEASE: Final = """
UPDATE tasks SET place = 2, at = :p2 + lease, token = :p3 + e.key, deliveries = deliveries + 1
FROM json_each(:p1) AS e WHERE tasks.number = e.value
"""
# Rows: number, id, token. A lease that has ended does not hold, even if nobody has taken note of its end yet.
FIND_HELD: Final = """
SELECT json_group_array(json_array(e.key, t.revoked IS NOT NULL))
FROM json_each(:p1) AS e CROSS JOIN tasks AS t
ON t.number = json_extract(e.value, '$[0]') AND t.id = json_extract(e.value, '$[1]')
   AND t.token = json_extract(e.value, '$[2]') AND t.place = 2 AND t.at > :p2
"""
# Rows: number, until.
RENEW: Final = """
UPDATE tasks SET at = max(at, json_extract(e.value, '$[1]'))
FROM json_each(:p1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""
DELETE: Final = "DELETE FROM tasks WHERE number IN (SELECT value FROM json_each(:p1))"
# Rows: number, due time, or null for at once; turns from :p2 on.
RETRY: Final = """
UPDATE tasks SET place = iif(json_extract(e.value, '$[1]') IS NULL, 0, 1),
       at = coalesce(json_extract(e.value, '$[1]'), 9 - priority),
       turn = :p2 + e.key, token = 0, attempt = attempt + 1, strikes = 0
FROM json_each(:p1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""
RELEASE_LEASE: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, token = 0 WHERE number IN (SELECT value FROM json_each(:p1))
"""
# Rows: number, token.
GIVE_BACK: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, token = 0
FROM json_each(:p1) AS e
WHERE tasks.number = json_extract(e.value, '$[0]') AND token = json_extract(e.value, '$[1]') AND place = 2
"""
# Rows: number, letter; turns from :p3 on.
BURY: Final = """
UPDATE tasks SET place = 3, at = :p2, turn = :p3 + e.key, token = 0, letter = json_extract(e.value, '$[1]')
FROM json_each(:p1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""

# --- operating ----------------------------------------------------------------------------------------------------

COUNT: Final = "SELECT place, count(*) FROM tasks WHERE queue = :p1 GROUP BY place"
PEEK: Final = """
SELECT json_group_array(json_array(place, at, attempt, deliveries, id)), json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = :p1 AND place <= 1 ORDER BY place, at, turn LIMIT :p2 OFFSET :p3)
"""
# Ids in a JSON array.
FIND_IDS: Final = """
SELECT json_group_array(json_array(e.key, t.number, t.place))
FROM json_each(:p2) AS e CROSS JOIN tasks AS t ON t.queue = :p1 AND t.id = e.value
"""
FIND_REVOKED: Final = """
SELECT json_group_array(json_array(e.key, t.revoked))
FROM json_each(:p2) AS e CROSS JOIN tasks AS t ON t.queue = :p1 AND t.id = e.value AND t.revoked IS NOT NULL
"""
REVOKE: Final = "UPDATE tasks SET revoked = :p2 WHERE number IN (SELECT value FROM json_each(:p1))"
# Delayed tasks, to ready at once; turns from :p2 on.
HURRY: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, turn = :p2 + e.key FROM json_each(:p1) AS e WHERE tasks.number = e.value
"""
PURGE_WAITING: Final = """
DELETE FROM tasks WHERE number IN (SELECT number FROM tasks WHERE queue = :p1 AND place <= 1 LIMIT :p2)
"""
PURGE_DEAD: Final = """
DELETE FROM tasks WHERE number IN (SELECT number FROM tasks WHERE queue = :p1 AND place = 3 LIMIT :p2)
"""
LIST_DEAD: Final = """
SELECT json_group_array(json_array(letter, attempt, deliveries, strikes, id)), json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = :p1 AND place = 3 ORDER BY at DESC, turn DESC LIMIT :p2 OFFSET :p3)
"""
# Numbers in a JSON array, in its order.
GET_DEAD: Final = """
SELECT json_group_array(json_array(t.letter, t.attempt, t.deliveries, t.strikes, t.id)), json_group_array(t.envelope)
FROM json_each(:p1) AS e CROSS JOIN tasks AS t ON t.number = e.value
"""
# Place :p2 and, unless ready, due time :p3; turns from :p4 on.
REPLAY: Final = """
UPDATE tasks SET place = :p2, at = iif(:p2 = 0, 9 - priority, :p3), turn = :p4 + e.key,
       attempt = 0, strikes = 0, revoked = NULL, letter = NULL
FROM json_each(:p1) AS e WHERE tasks.number = e.value
"""

# --- broadcasts ---------------------------------------------------------------------------------------------------

SEND: Final = "INSERT INTO messages (at, channel, body) VALUES (:p1, :p2, :p3)"
LAST_MESSAGE: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
RECEIVE: Final = "SELECT number, body FROM messages WHERE number > :p1 AND channel = :p2 ORDER BY number LIMIT :p3"
# Of the oldest :p1 messages those that are older than :p2, or whose number is :p3 or less.
TRIM_MESSAGES: Final = """
DELETE FROM messages WHERE number IN (
    SELECT number FROM (SELECT number, at FROM messages ORDER BY number LIMIT :p1) WHERE at <= :p2 OR number <= :p3)
"""

# --- doorbells ----------------------------------------------------------------------------------------------------

HANG_BELL: Final = "INSERT OR REPLACE INTO doorbells VALUES (:p1, :p2)"
TAKE_BELLS_DOWN: Final = "DELETE FROM doorbells WHERE name IN (SELECT value FROM json_each(:p1))"
FIND_BELLS: Final = "SELECT name FROM doorbells WHERE interest & :p1 AND name <> :p2"

# --- statuses and heartbeats --------------------------------------------------------------------------------------

FIND_VERSIONS: Final = """
SELECT json_group_array(json_array(s.id, s.version)) FROM json_each(:p1) AS e CROSS JOIN statuses AS s
ON s.id = e.value AND s.expires > :p2
"""
# Rows: id, version, moment of expiry, body; serials from :p2 on.
RECORD: Final = """
INSERT OR REPLACE INTO statuses (id, version, serial, expires, body)
SELECT json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'), :p2 + e.key,
       json_extract(e.value, '$[2]'), json_extract(e.value, '$[3]')
FROM json_each(:p1) AS e
"""
GET_STATUS: Final = "SELECT body FROM statuses WHERE id = :p1 AND expires > :p2"
GET_CHANGE: Final = "SELECT serial, body FROM statuses WHERE id = :p1 AND expires > :p2 AND serial > :p3"
FORGET_STATUSES: Final = """
DELETE FROM statuses WHERE id IN (SELECT id FROM statuses WHERE expires <= :p1 ORDER BY expires LIMIT :p2)
"""
PUT_HEARTBEAT: Final = "INSERT OR REPLACE INTO heartbeats VALUES (:p1, :p2, :p3)"
REMOVE_HEARTBEAT: Final = "DELETE FROM heartbeats WHERE worker = :p1"
FORGET_HEARTBEATS: Final = "DELETE FROM heartbeats WHERE expires <= :p1"
LIST_HEARTBEATS: Final = "SELECT body FROM heartbeats WHERE expires > :p1 ORDER BY worker"

# --- space --------------------------------------------------------------------------------------------------------

READ_SPACE: Final = (
    "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)"
)
GIVE_SPACE_BACK: Final = "PRAGMA incremental_vacuum({:d})"
