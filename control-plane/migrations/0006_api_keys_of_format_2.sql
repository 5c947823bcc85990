-- Of the API keys of a generation: '1', '2' or 'short'. `public` is the public key that those of format 2 are checked with;
-- null for the others, whose secret both makes and checks them.
ALTER TABLE tag_keys ADD COLUMN format TEXT NOT NULL DEFAULT '1';
ALTER TABLE tag_keys ADD COLUMN public TEXT;

-- `ends_at` stands in the API key itself: null where it has no end, and in format 1. `expires_at` may come earlier.
ALTER TABLE api_keys ADD COLUMN format TEXT NOT NULL DEFAULT '1';
ALTER TABLE api_keys ADD COLUMN ends_at BIGINT;
