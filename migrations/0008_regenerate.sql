-- `replaces`: the place of the reply that goes when this one has words. `drops`: an edit; what stands between question and
-- reply is gone for everybody, and a job removes it. `regenerate_of`: set where another reply was asked for, and what the
-- request named; `idempotency_key` is that request's.
ALTER TABLE generation ADD COLUMN replaces BIGINT;
ALTER TABLE generation ADD COLUMN drops BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE generation ADD COLUMN regenerate_of TEXT;
ALTER TABLE generation ADD COLUMN idempotency_key TEXT;

CREATE INDEX generation_of_reply ON generation (conversation_key, reply_seq);
CREATE INDEX generation_drops ON generation (conversation_key) WHERE drops;
CREATE UNIQUE INDEX generation_idempotency ON generation (owner_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
