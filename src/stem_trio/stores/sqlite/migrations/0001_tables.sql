-- Everything there is. Moments are microseconds of the store's clock (see clock.py), of which leases have a second one
-- that does not count while the machine sleeps. Envelopes and statuses are the JSON that travels, byte for byte.

-- One row: the sequence that turns, tokens and serials are taken from, and what the store's clocks go on from.
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    boot TEXT NOT NULL,             -- of the machine; empty before the first use
    time_offset INTEGER NOT NULL,   -- from the reading of the boot clock to the store's time
    lease_offset INTEGER NOT NULL,  -- from the reading of the monotonic clock to the time of leases
    time INTEGER NOT NULL,          -- the store's time when last written
    wall INTEGER NOT NULL           -- the time of day then
);
INSERT INTO state VALUES (1, 0, '', 0, 0, 0, 0);

-- Each task is in one place: 0 ready, 1 delayed, 2 leased, 3 dead. `at` orders it there: for ready ones 9 less the
-- priority, for the others a moment: due, end of the lease, death. `turn` orders those of equal `at`.
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    place INTEGER NOT NULL,
    at INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lease INTEGER NOT NULL,         -- how long one holds, in microseconds
    token INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    revoked TEXT,                   -- the reason, as JSON text
    letter TEXT,                    -- while dead: reason, detail and time of day, as JSON
    envelope TEXT NOT NULL
);
CREATE UNIQUE INDEX tasks_by_id ON tasks (queue, id);
CREATE INDEX tasks_by_place ON tasks (queue, place, at, turn);

CREATE TABLE statuses (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    serial INTEGER NOT NULL,        -- greater with each record
    expires INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX statuses_by_expiry ON statuses (expires);

CREATE TABLE heartbeats (
    worker TEXT PRIMARY KEY,
    expires INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;

-- Broadcasts. AUTOINCREMENT: a number is not given again after its message was trimmed.
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    channel TEXT NOT NULL,
    body BLOB NOT NULL
);

-- Processes to be woken by a named pipe beside the file, and by which kinds of change (a sum of bits).
CREATE TABLE doorbells (
    name TEXT PRIMARY KEY,
    interest INTEGER NOT NULL
) WITHOUT ROWID;
