//! What a compaction keeps for the next one changes its cost and nothing else.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use bundle::builder::BuiltBlock;
use control_plane::{
    config::{self, Config},
    credentials::{
        issued,
        tokens::{IssuedToken, Lifetime, TokenRecipient, issue_token},
    },
    db::Store,
    domain::{Actor, Subject},
    keys::{activate_pending_signing_key, rotate_signing_key},
    platform::{
        clock::{self, Clock},
        data_dir::DataDir,
    },
    publishing::{blocks, compact_base, compact_base_if_due},
    revocation::{AccessScope, RevocationTarget, revoke, unrevoke},
    service::Service,
};
use token::Fingerprint;

use crate::{for_each_backend, test_env::TestEnv, trust_anchor::execute};

for_each_backend! {
    /// Rows that vanish from the database show what is read.
    async fn compaction_reads_only_what_is_new(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(8).await;
        fixture.revoke(&tokens[0]).await;
        assert_eq!(fixture.compact().await, Some((8, 1)));
        execute(&env, &delete_token(&tokens[7])).await;
        let later = fixture.issue(4).await;
        fixture.revoke(&later[0]).await;
        assert_eq!(fixture.compact().await, Some((12, 2)));
        fixture.assert_exact(&tokens, &BTreeSet::from([0])).await;
        fixture.assert_exact(&later, &BTreeSet::from([0])).await;
        // A token that was revoked before the base covered it.
        let last = fixture.issue_now(3).await;
        fixture.revoke_now(&last[1]).await;
        fixture.revoke_now(&later[1]).await;
        assert_eq!(fixture.compact_now().await, Some((12, 3)));
        fixture.clock.advance(Duration::from_secs(2));
        fixture.issue(1).await;
        fixture.revoke(&later[2]).await;
        assert_eq!(fixture.compact().await, Some((16, 5)));
        fixture.assert_exact(&last, &BTreeSet::from([1])).await;
    }

    async fn damaged_universe_is_read_again(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(9).await;
        let revoked = BTreeSet::from([0, 1]);
        fixture.revoke(&tokens[0]).await;
        fixture.revoke(&tokens[1]).await;
        // The revocation of an unknown token waits for its issue.
        let target = RevocationTarget::Fingerprint(Fingerprint::digest(b"unknown"));
        revoke(&fixture.service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
        assert_eq!(fixture.compact().await, Some((9, 2)));
        let count = files(&env).len();
        assert_eq!(count, 4, "index, members, revoked, pending");
        type Damage = fn(&PathBuf);
        let damages: [(&str, Damage); 5] = [
            ("removed", remove),
            ("flipped", flip_a_bit),
            ("truncated", truncate),
            ("appended", append),
            ("emptied", empty),
        ];
        for (what, damage) in damages {
            for at in 0..count {
                let file = files(&env).swap_remove(at);
                damage(&file);
                // The row of a token is missing while the universe is used, so it shows whether everything is read again.
                fixture.unrevoke(&tokens[1]).await;
                fixture.revoke(&tokens[1]).await;
                let row = fixture.take_row(&env, &tokens[8]).await;
                assert_eq!(fixture.compact().await, Some((8, 2)), "{what} {}", file.display());
                execute(&env, &row).await;
                fixture.assert_exact(&tokens[..8], &revoked).await;
                // For the next round.
                execute(&env, "DELETE FROM compactions").await;
                fixture.unrevoke(&tokens[1]).await;
                fixture.revoke(&tokens[1]).await;
                assert_eq!(fixture.compact().await, Some((9, 2)), "{what} {}", file.display());
                assert_eq!(cached_fingerprints(&env), fingerprints(&tokens), "{what} {}", file.display());
            }
        }
    }

    /// A restored database does not have the record of the compaction.
    async fn universe_of_another_history_is_not_used(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(6).await;
        fixture.revoke(&tokens[0]).await;
        assert_eq!(fixture.compact().await, Some((6, 1)));
        execute(&env, "DELETE FROM compactions").await;
        execute(&env, &delete_token(&tokens[5])).await;
        fixture.revoke(&tokens[1]).await;
        assert_eq!(fixture.compact().await, Some((5, 2)));
    }

    /// The tokens of a new key that were issued earlier than the universe ends are not covered.
    async fn new_key_is_covered_from_what_was_read(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(3).await;
        fixture.revoke(&tokens[0]).await;
        fixture.compact().await.unwrap();
        rotate_signing_key(&fixture.service, &Actor::Admin).await.unwrap();
        fixture.clock.advance(fixture.service.config().publisher.lifetime.get());
        activate_pending_signing_key(&fixture.service).await.unwrap().unwrap();
        let newer = fixture.issue(3).await;
        assert_ne!(fixture.kid_of(&newer[0]).await, fixture.kid_of(&tokens[0]).await);
        fixture.revoke(&newer[2]).await;
        assert_eq!(fixture.compact().await, Some((6, 2)));
        let block = fixture.blocks().await.pop().unwrap();
        let mut from: Vec<u64> = block.coverage().iter().map(|range| range.iat_low).collect();
        from.sort_unstable();
        assert!(from[0] == 0 && from[1] > 0, "{from:?}");
        fixture.assert_exact(&newer, &BTreeSet::from([2])).await;
    }

    async fn compaction_is_due_after_enough_revocations_of_own_tokens(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(5).await;
        for number in 0..4_u8 {
            // A fingerprint that was not issued here does not count.
            let target = RevocationTarget::Fingerprint(Fingerprint::digest(&[number]));
            revoke(&fixture.service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
        }
        let is_compacted = async || compact_base_if_due(&fixture.service).await.unwrap().is_some();
        for (at, expected) in [(0, false), (1, false), (2, true), (3, false)] {
            fixture.revoke(&tokens[at]).await;
            assert_eq!(is_compacted().await, expected, "{at}");
        }
        assert!(!is_compacted().await);
    }

    /// The database of an earlier release, with a base, compacts on.
    async fn base_of_earlier_schema_is_kept(env: TestEnv) {
        let fixture = Fixture::start(&env).await;
        let tokens = fixture.issue(6).await;
        fixture.revoke(&tokens[2]).await;
        fixture.compact().await.unwrap();
        fixture.service.close().await;
        for statement in [
            "DROP TABLE compactions",
            "ALTER TABLE block_coverage DROP COLUMN low",
            "DELETE FROM _sqlx_migrations WHERE version >= 14",
        ] {
            execute(&env, statement).await;
        }
        fs::remove_dir_all(env.data().join("cache")).unwrap();
        let fixture = Fixture::start_at(&env, fixture.clock.clone()).await;
        fixture.assert_exact(&tokens, &BTreeSet::from([2])).await;
        fixture.revoke(&tokens[3]).await;
        assert_eq!(fixture.compact().await, Some((6, 2)));
        fixture.assert_exact(&tokens, &BTreeSet::from([2, 3])).await;
    }
}

/// Two servers with a cache each, on one database.
#[tokio::test]
async fn replicas_compact_in_turns() {
    let env = TestEnv::on_postgres().await;
    let other = env.replica();
    let here = Fixture::start(&env).await;
    let there = Fixture::start_at(&other, here.clock.clone()).await;
    let mut tokens = here.issue(10).await;
    let mut revoked = BTreeSet::new();
    for round in 0..6 {
        let fixture = if round % 3 == 1 { &there } else { &here };
        tokens.extend(fixture.issue(2).await);
        fixture.revoke(&tokens[round * 2]).await;
        revoked.insert(round * 2);
        if round == 4 {
            fixture.unrevoke(&tokens[0]).await;
            revoked.remove(&0);
        }
        assert_eq!(fixture.compact().await, Some((tokens.len() as u64, revoked.len() as u64)), "{round}");
        fixture.assert_exact(&tokens, &revoked).await;
    }
}

struct Fixture {
    service: Service,
    store: Store,
    clock: Clock,
    recipient: Subject,
}

impl Fixture {
    async fn start(env: &TestEnv) -> Self {
        // The middle of a bucket, so that all tokens expire in the same one.
        let now = clock::now();
        let middle = now.plus(Duration::from_secs(21_600 - now.seconds().get() % 21_600 + 3600));
        Self::start_at(env, Clock::manual(middle)).await
    }

    async fn start_at(env: &TestEnv, clock: Clock) -> Self {
        let store = config::Store { url: env.url.clone() };
        let mut config = Config { store, ..Config::default() };
        config.publisher.compact_after = 3;
        let service = Service::open_at(DataDir::new(env.data()), config, clock.clone()).await.unwrap();
        let recipient = format!("{}/alice", env.operator).parse().unwrap();
        Self { service, store: env.store().await, clock, recipient }
    }

    /// Issues tokens in a second that is covered later.
    async fn issue(&self, count: usize) -> Vec<IssuedToken> {
        self.clock.advance(Duration::from_secs(2));
        let tokens = self.issue_now(count).await;
        self.clock.advance(Duration::from_secs(2));
        tokens
    }

    async fn issue_now(&self, count: usize) -> Vec<IssuedToken> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            let recipient = TokenRecipient::Subject(self.recipient.clone());
            let lifetime = Lifetime::try_from(86_400).unwrap();
            tokens.push(issue_token(&self.service, recipient, lifetime).await.unwrap());
        }
        tokens
    }

    async fn revoke(&self, token: &IssuedToken) {
        self.revoke_now(token).await;
        self.clock.advance(Duration::from_secs(1));
    }

    async fn revoke_now(&self, token: &IssuedToken) {
        let target = RevocationTarget::Fingerprint(token.fingerprint);
        revoke(&self.service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
    }

    async fn unrevoke(&self, token: &IssuedToken) {
        unrevoke(&self.service, &Actor::Admin, &token.fingerprint).await.unwrap();
        self.clock.advance(Duration::from_secs(1));
    }

    async fn compact(&self) -> Option<(u64, u64)> {
        self.clock.advance(Duration::from_secs(2));
        self.compact_now().await
    }

    /// Compacts, and returns the numbers of members and of revoked ones in the new blocks.
    async fn compact_now(&self) -> Option<(u64, u64)> {
        let done = compact_base(&self.service, &Actor::System).await.unwrap();
        done.version?;
        let members = done.blocks.iter().map(|block| block.members).sum();
        Some((members, done.blocks.iter().map(|block| block.revoked).sum()))
    }

    /// Deletes the row of a token, and returns the statement that inserts it again.
    async fn take_row(&self, env: &TestEnv, token: &IssuedToken) -> String {
        let mut reader = self.store.reader().await.unwrap();
        let row = issued::find(&mut reader, &token.fingerprint).await.unwrap().unwrap();
        execute(env, &delete_token(token)).await;
        format!(
            "INSERT INTO issued (prefix, fingerprint, kid, operator_id, issued_at, expires_at) \
             VALUES ({}, '{}', '{}', '{}', {}, {})",
            token.fingerprint.prefix().cast_signed(),
            token.fingerprint,
            row.kid,
            row.subject.operator,
            row.issued_at,
            row.expires_at
        )
    }

    async fn kid_of(&self, token: &IssuedToken) -> String {
        let mut reader = self.store.reader().await.unwrap();
        issued::find(&mut reader, &token.fingerprint).await.unwrap().unwrap().kid
    }

    async fn blocks(&self) -> Vec<BuiltBlock> {
        let mut reader = self.store.reader().await.unwrap();
        let mut built = Vec::new();
        for row in blocks::list(&mut reader).await.unwrap() {
            let bytes = blocks::read_bytes(&mut reader, row.expires_from).await.unwrap();
            built.push(BuiltBlock::from_bytes(&bytes).unwrap());
        }
        built
    }

    /// The block of each token states whether it is revoked.
    async fn assert_exact(&self, tokens: &[IssuedToken], revoked: &BTreeSet<usize>) {
        let blocks = self.blocks().await;
        for (at, token) in tokens.iter().enumerate() {
            let block = blocks
                .iter()
                .find(|block| block.expiry_range().contains(token.expires_at.map(Into::into)))
                .unwrap();
            assert_eq!(block.contains(&token.fingerprint), revoked.contains(&at), "token {at}");
        }
    }
}

fn delete_token(token: &IssuedToken) -> String {
    format!("DELETE FROM issued WHERE fingerprint = '{}'", token.fingerprint)
}

fn fingerprints(tokens: &[IssuedToken]) -> BTreeSet<Fingerprint> {
    tokens.iter().map(|token| token.fingerprint).collect()
}

/// Returns the files of the universe, the largest first.
fn files(env: &TestEnv) -> Vec<PathBuf> {
    let folder = fs::read_dir(env.data().join("cache/universe")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(fs::metadata(file).unwrap().len()));
    files
}

/// Returns the fingerprints in the file of the only bucket.
fn cached_fingerprints(env: &TestEnv) -> BTreeSet<Fingerprint> {
    let files = files(env);
    let members = files.iter().find(|file| !file.ends_with("index")).unwrap();
    fs::read(members).unwrap().as_chunks().0.iter().map(|bytes: &[u8; 32]| (*bytes).into()).collect()
}

fn remove(file: &PathBuf) {
    fs::remove_file(file).unwrap();
}

fn flip_a_bit(file: &PathBuf) {
    change(file, |bytes| {
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 4;
        }
    });
}

fn truncate(file: &PathBuf) {
    change(file, |bytes| bytes.truncate(bytes.len().saturating_sub(1) / 32 * 32));
}

fn append(file: &PathBuf) {
    change(file, |bytes| bytes.extend([0; 160]));
}

fn empty(file: &PathBuf) {
    change(file, Vec::clear);
}

fn change(file: &PathBuf, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    how(&mut bytes);
    fs::write(file, bytes).unwrap();
}
