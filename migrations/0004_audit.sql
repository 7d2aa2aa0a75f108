-- Append-only: what was done to accounts, by whom and from where, written in the transaction of the change.
-- `address` is removed after 30 days, the row after 400. `details` is JSON and holds no text that people wrote.
CREATE TABLE audit_event (
  id UUID NOT NULL PRIMARY KEY,
  at BIGINT NOT NULL,
  action TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure')),
  actor UUID,
  subject UUID,
  session_id UUID,
  address TEXT,
  user_agent TEXT,
  details TEXT NOT NULL
);
CREATE INDEX audit_event_time ON audit_event (at, id);
CREATE INDEX audit_event_subject ON audit_event (subject, at);
