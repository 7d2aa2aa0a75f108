-- Who a user is at a payment provider. Written before the first checkout; a reference never becomes somebody else's.
-- `asked` counts how often its owner had the provider asked since `asked_since`.
CREATE TABLE billing_customer (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  reference TEXT NOT NULL,
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  asked BIGINT NOT NULL,
  asked_since BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (provider, mode, reference),
  UNIQUE (user_id, provider, mode)
);

-- Subscriptions as providers have them. Without a user: told of by a provider that cannot be asked, and nobody's yet.
-- `price_at`, `cancelled` and `renewal_at` are what such a provider's facts come together in. `version` grows with every
-- change: it is the fence of the snapshot, or counts the facts.
CREATE TABLE subscription (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  reference TEXT NOT NULL,
  user_id UUID REFERENCES app_user (id) ON DELETE CASCADE,
  customer TEXT,
  state TEXT NOT NULL CHECK (state IN ('pending', 'trialing', 'active', 'past_due', 'paused', 'unpaid', 'ended', 'unknown')),
  raw_state TEXT NOT NULL,
  price TEXT,
  period_start BIGINT,
  period_end BIGINT,
  cancel_at BIGINT,
  ended_at BIGINT,
  price_at BIGINT,
  cancelled BOOLEAN NOT NULL,
  renewal_at BIGINT,
  version BIGINT NOT NULL,
  observed_at BIGINT NOT NULL,
  PRIMARY KEY (provider, mode, reference)
);
CREATE INDEX subscription_user ON subscription (user_id);
CREATE INDEX subscription_customer ON subscription (provider, mode, customer);
CREATE INDEX subscription_running ON subscription (provider, mode, customer) WHERE state <> 'ended';

-- Why access is held up: disputes and refunds by the provider's reference, and what operators decided. `released_by` is
-- who let go of it; what an operator released stays so.
CREATE TABLE access_hold (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  reference TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('chargeback', 'refund', 'manual')),
  user_id UUID REFERENCES app_user (id) ON DELETE CASCADE,
  subscription TEXT,
  opened_at BIGINT NOT NULL,
  released_at BIGINT,
  released_by TEXT CHECK (released_by IN ('provider', 'operator')),
  PRIMARY KEY (provider, mode, reference)
);
CREATE INDEX access_hold_user ON access_hold (user_id);
CREATE INDEX access_hold_subscription ON access_hold (provider, mode, subscription);

-- Access that an operator gave. `reason` is sealed.
CREATE TABLE access_grant (
  id UUID NOT NULL PRIMARY KEY,
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  plan TEXT NOT NULL,
  starts_at BIGINT NOT NULL,
  ends_at BIGINT NOT NULL,
  reason BYTEA NOT NULL,
  granted_by UUID,
  revoked_at BIGINT
);
CREATE INDEX access_grant_user ON access_grant (user_id);

-- Every notice that providers sent, once. `seq` is the wish of the subject's queue that it became; it is done when a
-- snapshot that was asked for afterwards has been stored.
CREATE TABLE billing_inbox (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  event_key TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT,
  seq BIGINT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'done', 'ignored', 'dead')),
  occurred_at BIGINT NOT NULL,
  received_at BIGINT NOT NULL,
  PRIMARY KEY (provider, mode, event_key)
);
CREATE INDEX billing_inbox_subject ON billing_inbox (provider, mode, subject, seq) WHERE status IN ('pending', 'dead');
CREATE INDEX billing_inbox_dead ON billing_inbox (received_at) WHERE status = 'dead';
CREATE INDEX billing_inbox_received ON billing_inbox (received_at);

-- What providers are to be asked, one at a time for each subject: a wish is a number, and so is what has been stored.
CREATE TABLE billing_sync (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  subject TEXT NOT NULL,
  want_seq BIGINT NOT NULL,
  done_seq BIGINT NOT NULL,
  next_at BIGINT NOT NULL,
  lease_until BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  failing_since BIGINT,
  last_error TEXT,
  PRIMARY KEY (provider, mode, subject)
);
CREATE INDEX billing_sync_due ON billing_sync (next_at) WHERE want_seq > done_seq;

-- Checkouts that are open, one for each user. `nonce` makes the call to the provider repeatable, `request` is a hash of what
-- was asked for, and `url` is sealed: whoever has it can pay.
CREATE TABLE checkout_intent (
  user_id UUID NOT NULL PRIMARY KEY REFERENCES app_user (id) ON DELETE CASCADE,
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  plan TEXT NOT NULL,
  nonce UUID NOT NULL,
  request BYTEA NOT NULL,
  reference TEXT,
  url BYTEA,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX checkout_intent_begun ON checkout_intent (provider, mode, created_at);
CREATE INDEX checkout_intent_expiry ON checkout_intent (expires_at);

-- Until when a provider's undelivered notices have been looked through.
CREATE TABLE billing_cursor (
  provider TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
  looked_at BIGINT NOT NULL,
  PRIMARY KEY (provider, mode)
);
