"""All SQL there is, except for the schema.

Batches travel as one JSON parameter and come back as one JSON value: a statement is then one call into SQLite whatever
the size of the batch, during which other threads run. Taking row by row, the thread would have to win back Python's
lock for each, from a trio thread that is busy. In ``json_each`` aliased ``e``, ``e.key`` is the position in the batch.

Places are written as numbers: 0 ready, 1 delayed, 2 leased, 3 dead.
"""

from __future__ import annotations

from typing import Final

# --- transactions -------------------------------------------------------------------------------------------------

BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
BEGIN_READING: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT job"
RELEASE: Final = "RELEASE job"
ROLLBACK_TO: Final = "ROLLBACK TO job"

READ_SEQUENCE: Final = "SELECT sequence FROM state"
SET_STATE: Final = "UPDATE state SET sequence = ?, time = max(time, ?), wall = ?"
READ_CLOCK: Final = "SELECT boot, time_offset, lease_offset, time, wall FROM state"
SET_CLOCK: Final = "UPDATE state SET boot = ?, time_offset = ?, lease_offset = ?, time = ?, wall = ?"
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
SELECT EXISTS (SELECT 1 FROM tasks WHERE queue = ?1 AND place = 1 AND at <= ?2),
       EXISTS (SELECT 1 FROM tasks WHERE queue = ?1 AND place = 2 AND at <= ?3),
       EXISTS (SELECT 1 FROM tasks WHERE queue = ?1 AND place = 3 AND at <= ?4)
"""
PROMOTE: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, turn = ?3 + due.position
FROM (SELECT number, row_number() OVER (ORDER BY at, turn) AS position FROM tasks
      WHERE queue = ?1 AND place = 1 AND at <= ?2 ORDER BY at, turn LIMIT ?4) AS due
WHERE tasks.number = due.number
"""
RECLAIM: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, strikes = strikes + 1, token = 0
WHERE number IN (SELECT number FROM tasks WHERE queue = ?1 AND place = 2 AND at <= ?2 ORDER BY at LIMIT ?3)
"""
FORGET_DEAD: Final = """
DELETE FROM tasks
WHERE number IN (SELECT number FROM tasks WHERE queue = ?1 AND place = 3 AND at <= ?2 ORDER BY at LIMIT ?3)
"""
# Of dead letters beyond the newest ?2.
TRIM_DEAD: Final = """
DELETE FROM tasks
WHERE number IN (SELECT number FROM tasks WHERE queue = ?1 AND place = 3 ORDER BY at DESC, turn DESC LIMIT ?3 OFFSET ?2)
"""
# When something happens next by itself.
NEXT_DUE: Final = """
SELECT (SELECT min(at) FROM tasks WHERE queue = ?1 AND place = 1),
       (SELECT min(at) FROM tasks WHERE queue = ?1 AND place = 2)
"""

# --- tasks --------------------------------------------------------------------------------------------------------

# Rows: queue, id, priority, length of the lease, envelope.
PUBLISH: Final = """
INSERT INTO tasks (queue, id, place, at, turn, priority, lease, envelope)
SELECT json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'), ?2,
       iif(?2 = 0, 9 - json_extract(e.value, '$[2]'), ?3), ?4 + e.key, json_extract(e.value, '$[2]'),
       json_extract(e.value, '$[3]'), json_extract(e.value, '$[4]')
FROM json_each(?1) AS e WHERE true
ON CONFLICT DO NOTHING
"""
# Which rows of a batch that began at turn ?2 were put in.
FIND_PUBLISHED: Final = """
SELECT json_group_array(e.key) FROM json_each(?1) AS e CROSS JOIN tasks AS t
ON t.queue = json_extract(e.value, '$[0]') AND t.id = json_extract(e.value, '$[1]') AND t.turn = ?2 + e.key
"""
FIND_READY: Final = """
SELECT json_group_array(json_array(at, turn, number, attempt, deliveries, strikes, revoked, lease)),
       json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = ?1 AND place = 0 ORDER BY at, turn LIMIT ?2)
"""
# The same without envelopes, of which a claim from several queues would read more than it takes.
FIND_READY_NUMBERS: Final = """
SELECT json_group_array(json_array(at, turn, number))
FROM (SELECT at, turn, number FROM tasks WHERE queue = ?1 AND place = 0 ORDER BY at, turn LIMIT ?2)
"""
FIND_NUMBERS: Final = """
SELECT json_group_array(json_array(t.at, t.turn, t.number, t.attempt, t.deliveries, t.strikes, t.revoked, t.lease)),
       json_group_array(t.envelope)
FROM json_each(?1) AS e CROSS JOIN tasks AS t ON t.number = e.value
"""
# In the order of the batch, from token ?3 on.
LEASE: Final = """
UPDATE tasks SET place = 2, at = ?2 + lease, token = ?3 + e.key, deliveries = deliveries + 1
FROM json_each(?1) AS e WHERE tasks.number = e.value
"""
# Rows: number, id, token. A lease that has ended does not hold, even if nobody has taken note of its end yet.
FIND_HELD: Final = """
SELECT json_group_array(json_array(e.key, t.revoked IS NOT NULL))
FROM json_each(?1) AS e CROSS JOIN tasks AS t
ON t.number = json_extract(e.value, '$[0]') AND t.id = json_extract(e.value, '$[1]')
   AND t.token = json_extract(e.value, '$[2]') AND t.place = 2 AND t.at > ?2
"""
# Rows: number, until.
RENEW: Final = """
UPDATE tasks SET at = max(at, json_extract(e.value, '$[1]'))
FROM json_each(?1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""
DELETE: Final = "DELETE FROM tasks WHERE number IN (SELECT value FROM json_each(?1))"
# Rows: number, due time, or null for at once; turns from ?2 on.
RETRY: Final = """
UPDATE tasks SET place = iif(json_extract(e.value, '$[1]') IS NULL, 0, 1),
       at = coalesce(json_extract(e.value, '$[1]'), 9 - priority),
       turn = ?2 + e.key, token = 0, attempt = attempt + 1, strikes = 0
FROM json_each(?1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""
RELEASE_LEASE: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, token = 0 WHERE number IN (SELECT value FROM json_each(?1))
"""
# Rows: number, token.
GIVE_BACK: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, token = 0
FROM json_each(?1) AS e
WHERE tasks.number = json_extract(e.value, '$[0]') AND token = json_extract(e.value, '$[1]') AND place = 2
"""
# Rows: number, letter; turns from ?3 on.
BURY: Final = """
UPDATE tasks SET place = 3, at = ?2, turn = ?3 + e.key, token = 0, letter = json_extract(e.value, '$[1]')
FROM json_each(?1) AS e WHERE tasks.number = json_extract(e.value, '$[0]')
"""

# --- operating ----------------------------------------------------------------------------------------------------

COUNT: Final = "SELECT place, count(*) FROM tasks WHERE queue = ? GROUP BY place"
PEEK: Final = """
SELECT json_group_array(json_array(place, at, attempt, deliveries)), json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = ?1 AND place <= 1 ORDER BY place, at, turn LIMIT ?2 OFFSET ?3)
"""
# Ids in a JSON array.
FIND_IDS: Final = """
SELECT json_group_array(json_array(e.key, t.number, t.place))
FROM json_each(?2) AS e CROSS JOIN tasks AS t ON t.queue = ?1 AND t.id = e.value
"""
REVOKE: Final = "UPDATE tasks SET revoked = ?2 WHERE number IN (SELECT value FROM json_each(?1))"
# Delayed tasks, to ready at once; turns from ?2 on.
HURRY: Final = """
UPDATE tasks SET place = 0, at = 9 - priority, turn = ?2 + e.key FROM json_each(?1) AS e WHERE tasks.number = e.value
"""
PURGE_WAITING: Final = """
DELETE FROM tasks WHERE number IN (SELECT number FROM tasks WHERE queue = ?1 AND place <= 1 LIMIT ?2)
"""
PURGE_DEAD: Final = """
DELETE FROM tasks WHERE number IN (SELECT number FROM tasks WHERE queue = ?1 AND place = 3 LIMIT ?2)
"""
LIST_DEAD: Final = """
SELECT json_group_array(json_array(letter, attempt, deliveries, strikes)), json_group_array(envelope)
FROM (SELECT * FROM tasks WHERE queue = ?1 AND place = 3 ORDER BY at DESC, turn DESC LIMIT ?2 OFFSET ?3)
"""
# Numbers in a JSON array, in its order.
GET_DEAD: Final = """
SELECT json_group_array(json_array(t.letter, t.attempt, t.deliveries, t.strikes)), json_group_array(t.envelope)
FROM json_each(?1) AS e CROSS JOIN tasks AS t ON t.number = e.value
"""
# Place ?2 and, unless ready, due time ?3; turns from ?4 on.
REPLAY: Final = """
UPDATE tasks SET place = ?2, at = iif(?2 = 0, 9 - priority, ?3), turn = ?4 + e.key,
       attempt = 0, strikes = 0, revoked = NULL, letter = NULL
FROM json_each(?1) AS e WHERE tasks.number = e.value
"""

# --- broadcasts ---------------------------------------------------------------------------------------------------

SEND: Final = "INSERT INTO messages (at, channel, body) VALUES (?, ?, ?)"
LAST_MESSAGE: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
RECEIVE: Final = "SELECT number, body FROM messages WHERE number > ?1 AND channel = ?2 ORDER BY number LIMIT ?3"
# Of the oldest ?1 messages those that are older than ?2, or whose number is ?3 or less.
TRIM_MESSAGES: Final = """
DELETE FROM messages WHERE number IN (
    SELECT number FROM (SELECT number, at FROM messages ORDER BY number LIMIT ?1) WHERE at <= ?2 OR number <= ?3)
"""

# --- doorbells ----------------------------------------------------------------------------------------------------

HANG_BELL: Final = "INSERT OR REPLACE INTO doorbells VALUES (?, ?)"
TAKE_BELLS_DOWN: Final = "DELETE FROM doorbells WHERE name IN (SELECT value FROM json_each(?1))"
FIND_BELLS: Final = "SELECT name FROM doorbells WHERE interest & ?1 AND name <> ?2"

# --- statuses and heartbeats --------------------------------------------------------------------------------------

FIND_VERSIONS: Final = """
SELECT json_group_array(json_array(s.id, s.version)) FROM json_each(?1) AS e CROSS JOIN statuses AS s
ON s.id = e.value AND s.expires > ?2
"""
# Rows: id, version, moment of expiry, body; serials from ?2 on.
RECORD: Final = """
INSERT OR REPLACE INTO statuses (id, version, serial, expires, body)
SELECT json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'), ?2 + e.key,
       json_extract(e.value, '$[2]'), json_extract(e.value, '$[3]')
FROM json_each(?1) AS e
"""
GET_STATUS: Final = "SELECT body FROM statuses WHERE id = ? AND expires > ?"
GET_CHANGE: Final = "SELECT serial, body FROM statuses WHERE id = ? AND expires > ? AND serial > ?"
FORGET_STATUSES: Final = """
DELETE FROM statuses WHERE id IN (SELECT id FROM statuses WHERE expires <= ?1 ORDER BY expires LIMIT ?2)
"""
PUT_HEARTBEAT: Final = "INSERT OR REPLACE INTO heartbeats VALUES (?, ?, ?)"
REMOVE_HEARTBEAT: Final = "DELETE FROM heartbeats WHERE worker = ?"
FORGET_HEARTBEATS: Final = "DELETE FROM heartbeats WHERE expires <= ?"
LIST_HEARTBEATS: Final = "SELECT body FROM heartbeats WHERE expires > ? ORDER BY worker"

# --- space --------------------------------------------------------------------------------------------------------

READ_SPACE: Final = (
    "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)"
)
GIVE_SPACE_BACK: Final = "PRAGMA incremental_vacuum({:d})"
