-- How often a day a reply that came to nothing was given back although the message can have brought that about.
ALTER TABLE quota_day ADD COLUMN free_failures BIGINT NOT NULL DEFAULT 0;

-- The newest reply to a message is one step away, however often it was tried.
CREATE INDEX generation_newest ON generation (conversation_key, question_seq, reply_seq);
DROP INDEX generation_of_question;
