-- One row per user and day (UTC, counted from 1970). `free_stops`: stops before the first word that gave back.
CREATE TABLE quota_day (
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  day BIGINT NOT NULL,
  used BIGINT NOT NULL,
  free_stops BIGINT NOT NULL,
  PRIMARY KEY (user_id, day)
);
CREATE INDEX quota_day_age ON quota_day (day);

-- `id` is the customer's own, unique per owner; `key` is ours and is what other rows point to.
-- A deleted conversation keeps this row, emptied, so that its id stays taken.
CREATE TABLE conversation (
  key UUID NOT NULL PRIMARY KEY,
  owner_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  id TEXT NOT NULL,
  companion_id TEXT NOT NULL,
  model TEXT NOT NULL,
  title BYTEA,
  last_seq BIGINT NOT NULL,
  message_count BIGINT NOT NULL,
  generation_id UUID,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT,
  UNIQUE (owner_id, id)
);
CREATE INDEX conversation_recent ON conversation (owner_id, updated_at, key);

-- Only `seq` orders messages. A reply has its row, `generating` and not shown, from the moment it is begun.
CREATE TABLE message (
  conversation_key UUID NOT NULL REFERENCES conversation (key) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  id TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
  status TEXT NOT NULL CHECK (status IN ('generating', 'complete', 'interrupted', 'stopped', 'failed')),
  body BYTEA NOT NULL,
  model TEXT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_key, seq),
  UNIQUE (conversation_key, id)
);

-- A reply in the making, and afterwards what it used. Until `lease` only `instance` may settle it, from then on
-- anybody. `partial`: some of its text has been stored.
CREATE TABLE generation (
  id UUID NOT NULL PRIMARY KEY,
  conversation_key UUID NOT NULL REFERENCES conversation (key) ON DELETE CASCADE,
  owner_id UUID NOT NULL,
  question_seq BIGINT NOT NULL,
  reply_seq BIGINT NOT NULL,
  reply_id TEXT NOT NULL,
  instance UUID NOT NULL,
  lease BIGINT NOT NULL,
  partial BOOLEAN NOT NULL,
  stop_requested BOOLEAN NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('generating', 'complete', 'interrupted', 'stopped', 'failed')),
  finish_reason TEXT CHECK (finish_reason IN ('stop', 'length', 'content-filter', 'other')),
  failure TEXT CHECK (failure IN ('failed', 'busy', 'too_slow', 'declined', 'broken_off', 'fault')),
  quota_day BIGINT NOT NULL,
  quota_returned BOOLEAN NOT NULL,
  provider TEXT,
  model TEXT,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  tokens_estimated BOOLEAN NOT NULL,
  started_at BIGINT NOT NULL,
  ended_at BIGINT
);
CREATE INDEX generation_of_question ON generation (conversation_key, question_seq);
CREATE INDEX generation_running ON generation (owner_id) WHERE status = 'generating';
CREATE INDEX generation_lease ON generation (lease) WHERE status = 'generating';
