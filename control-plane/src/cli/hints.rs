//! What an admin can do about an error. The errors themselves name no command and no option.

use std::error::Error;

use crate::{
    accounts::AccountError,
    credentials::{
        api_keys::ApiKeyError,
        auth_keys::CreateAuthKeyError,
        tokens::{IssueError, MintError},
    },
    db::StoreError,
    edges::{EnrollEdgeError, RemoveEdgeError, RotateEdgeError},
    installation::InitializeError,
    journal::{CatchUpError, JournalError},
    keys::{KeyError, RenewAuthorityError, SigningKeyError},
    maintenance::ClockError,
    publishing::{CompactBaseError, PublishError},
    restore::RepairError,
    revocation::{RevokeError, UnrevokeError},
    server::ServeError,
    service::OpenError,
};

/// Returns the hint for an error, if there is one.
pub(super) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    let found = error.downcast_ref().map(account);
    let found = found.or_else(|| error.downcast_ref().map(api_key));
    let found = found.or_else(|| error.downcast_ref().map(issue));
    let found = found.or_else(|| error.downcast_ref().map(mint));
    let found = found.or_else(|| error.downcast_ref().map(create_auth_key));
    let found = found.or_else(|| error.downcast_ref().map(unrevoke));
    let found = found.or_else(|| error.downcast_ref().map(revoke));
    let found = found.or_else(|| error.downcast_ref().map(enroll_edge));
    let found = found.or_else(|| error.downcast_ref().map(remove_edge));
    let found = found.or_else(|| error.downcast_ref().map(rotate_edge));
    let found = found.or_else(|| error.downcast_ref().map(initialize));
    let found = found.or_else(|| error.downcast_ref().map(catch_up));
    let found = found.or_else(|| error.downcast_ref().map(journal));
    let found = found.or_else(|| error.downcast_ref().map(key));
    let found = found.or_else(|| error.downcast_ref().map(renew_authority));
    let found = found.or_else(|| error.downcast_ref().map(signing_key));
    let found = found.or_else(|| error.downcast_ref().map(clock));
    let found = found.or_else(|| error.downcast_ref().map(publish));
    let found = found.or_else(|| error.downcast_ref().map(compact_base));
    let found = found.or_else(|| error.downcast_ref().map(repair));
    let found = found.or_else(|| error.downcast_ref().map(serve));
    let found = found.or_else(|| error.downcast_ref().map(open));
    found.or_else(|| error.downcast_ref().map(store)).flatten()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn account(error: &AccountError) -> Option<String> {
    match error {
        AccountError::OperatorUnknown => some("`keystile operator list` shows the existing ones"),
        AccountError::UserUnknown(_) => some("`keystile user list` shows the existing ones"),
        AccountError::ForeignSubjectUnknown(_) => {
            some("`keystile user list --foreign` shows the subjects that do")
        }
        AccountError::RoleUnknown(_) => some("`keystile role list` shows the existing ones"),
        AccountError::RoleExists(_) => some("`keystile role update` changes it"),
        AccountError::NameIsUsernameOfApiKey(_, key) => {
            Some(format!("choose another name, or run `keystile key delete {key}` first"))
        }
        AccountError::Store(error) => store(error),
        _ => None,
    }
}

fn api_key(error: &ApiKeyError) -> Option<String> {
    match error {
        ApiKeyError::Unknown(_) => some("`keystile key list` shows the existing ones"),
        ApiKeyError::Account(error) => account(error),
        ApiKeyError::NotActive(id) => Some(format!("`keystile key show {id}` shows its status")),
        ApiKeyError::NotDisabled(_) => {
            some("only keys that `keystile key disable` has disabled can be enabled")
        }
        ApiKeyError::Expired(_) | ApiKeyError::UnderWatermark(_) => {
            some("create another with `keystile key create`")
        }
        ApiKeyError::TagRetired(_) => some("create another key with `keystile key create`"),
        ApiKeyError::UsernameIsUser(user) => {
            Some(format!("to create a key of that user, use `--user {user}`"))
        }
        ApiKeyError::UsernameNotInherited(id) => Some(format!(
            "give one with `keystile key rotate {id} --username NAME`, where OPERATOR or OPERATOR/NAME of the owner \
             means the owner"
        )),
        ApiKeyError::ShortFormForRoot(_) => {
            some("create the key for a user, or return to format 2 with `keystile key rotate tag`")
        }
        ApiKeyError::KeyFileElsewhere { path, .. } => Some(format!(
            "create the API key where the file is, copy the file to `{}`, or start a generation here with `keystile \
             key rotate tag`",
            path.display()
        )),
        ApiKeyError::Keys(error) => key(error),
        ApiKeyError::Blocked(..) => some(REPAIR_CLOCK),
        ApiKeyError::Store(error) => store(error),
        _ => None,
    }
}

const REPAIR_CLOCK: &str = "`keystile clock repair` corrects it";

fn issue(error: &IssueError) -> Option<String> {
    match error {
        IssueError::Account(error) => account(error),
        IssueError::AuthKeyUnknown => some("`keystile authkey list` shows the existing ones"),
        IssueError::NeverNotAllowed => None,
        IssueError::Store(error) => store(error),
        IssueError::Mint(error) => mint(error),
    }
}

fn mint(error: &MintError) -> Option<String> {
    match error {
        MintError::Keys(error) => key(error),
        MintError::Store(error) => store(error),
        MintError::Blocked(..) => some(REPAIR_CLOCK),
        MintError::Log(_) | MintError::PrefixTaken | MintError::AuthKeyGone => None,
    }
}

fn create_auth_key(error: &CreateAuthKeyError) -> Option<String> {
    match error {
        CreateAuthKeyError::Account(error) => account(error),
        CreateAuthKeyError::RootOnly => None,
        CreateAuthKeyError::Store(error) => store(error),
    }
}

fn unrevoke(error: &UnrevokeError) -> Option<String> {
    match error {
        UnrevokeError::NotRevoked => {
            some("`keystile audit` shows what was revoked. A watermark cannot be taken back")
        }
        UnrevokeError::ScopeNotRevoked(_) => some("`keystile audit` shows what was revoked"),
        UnrevokeError::Disabled(id) => Some(format!("`keystile key enable {id}` enables it")),
        UnrevokeError::Store(error) => store(error),
        UnrevokeError::NotOneCredential | UnrevokeError::Expired | UnrevokeError::ApiKeyEnded => None,
    }
}

fn revoke(error: &RevokeError) -> Option<String> {
    match error {
        RevokeError::Store(error) => store(error),
        _ => None,
    }
}

const LIST_EDGES: &str = "`keystile edge list` shows the existing ones";

fn enroll_edge(error: &EnrollEdgeError) -> Option<String> {
    match error {
        EnrollEdgeError::NameTaken => {
            some("choose another, or remove the edge with `keystile edge remove` first")
        }
        EnrollEdgeError::Store(error) => store(error),
    }
}

fn remove_edge(error: &RemoveEdgeError) -> Option<String> {
    match error {
        RemoveEdgeError::NotFound => some(LIST_EDGES),
        RemoveEdgeError::Store(error) => store(error),
    }
}

fn rotate_edge(error: &RotateEdgeError) -> Option<String> {
    match error {
        RotateEdgeError::NotFound => some(LIST_EDGES),
        RotateEdgeError::OverlapTooLong => None,
        RotateEdgeError::Store(error) => store(error),
    }
}

fn initialize(error: &InitializeError) -> Option<String> {
    match error {
        InitializeError::AlreadyInitialized => {
            some("create another AuthKey with `keystile authkey create`, or give another folder with --data")
        }
        InitializeError::KeysExist { .. } => some("add --yes to create a new database for these keys"),
        InitializeError::Keys(error) => key(error),
        InitializeError::Store(error) => store(error),
        InitializeError::KeysMissing { .. } | InitializeError::Folder(_) => None,
    }
}

fn catch_up(error: &CatchUpError) -> Option<String> {
    match error {
        CatchUpError::Journal(error) => journal(error),
        CatchUpError::Store(error) => store(error),
        CatchUpError::Panicked => None,
    }
}

fn journal(error: &JournalError) -> Option<String> {
    match error {
        JournalError::Malformed { .. } => some(
            "if the database was not restored either, move the file away, and a server creates a new one; otherwise \
             inspect and remove the line, or move the file away and run `keystile restore --repair --everything`",
        ),
        _ => None,
    }
}

fn key(error: &KeyError) -> Option<String> {
    match error {
        KeyError::RootKeyNotFound { .. } => {
            some("copy it there for this command, or give its file with --root-key")
        }
        KeyError::Delegation { .. } => some("`keystile authority renew` signs another"),
        KeyError::Inconsistent { .. } => some(
            "restore the folder from its backup, or create new keys with `keystile authority rotate snapshot` and \
             `keystile authority rotate tail`",
        ),
        KeyError::NoSigner => some("run `keystile init`"),
        _ => None,
    }
}

fn renew_authority(error: &RenewAuthorityError) -> Option<String> {
    match error {
        RenewAuthorityError::Keys(error) => key(error),
        RenewAuthorityError::Store(error) => store(error),
    }
}

fn signing_key(error: &SigningKeyError) -> Option<String> {
    match error {
        SigningKeyError::Tag(error) => api_key(error),
        SigningKeyError::Keys(error) => key(error),
        SigningKeyError::Store(error) => store(error),
        SigningKeyError::Unknown(_) | SigningKeyError::NotActiveYet(_) => None,
    }
}

fn clock(error: &ClockError) -> Option<String> {
    match error {
        ClockError::Ahead(..) | ClockError::Behind(..) => {
            some("set the clock, or add --force if it is right")
        }
        ClockError::Unconfirmed => some("compare the clock with another, then add --force"),
        ClockError::Store(error) => store(error),
    }
}

fn publish(error: &PublishError) -> Option<String> {
    match error {
        PublishError::Keys(error) => key(error),
        PublishError::Store(error) => store(error),
        PublishError::Merge(error) => open(error),
        PublishError::RolledBack { .. } | PublishError::TooLarge(_) | PublishError::Invalid(_) => None,
    }
}

fn compact_base(error: &CompactBaseError) -> Option<String> {
    match error {
        CompactBaseError::Store(error) => store(error),
        _ => None,
    }
}

fn repair(error: &RepairError) -> Option<String> {
    match error {
        RepairError::InFuture => some("give the time of the backup with --since"),
        RepairError::Journal(error) => catch_up(error),
        RepairError::Revoke(error) => revoke(error),
        RepairError::Keys(error) => signing_key(error),
        RepairError::AuthKeys(_) => None,
        RepairError::Store(error) => store(error),
    }
}

fn serve(error: &ServeError) -> Option<String> {
    match error {
        ServeError::Open(error) => open(error),
        ServeError::Store(error) => store(error),
        ServeError::Publish(error) => publish(error),
        _ => None,
    }
}

fn open(error: &OpenError) -> Option<String> {
    match error {
        OpenError::NoDataDir { data_dir } => Some(format!(
            "run `keystile --data {} init`, or give another with --data",
            data_dir.path().display()
        )),
        OpenError::Store(error) => store(error),
        OpenError::Keys(error) => key(error),
        OpenError::Journal(error) => catch_up(error),
        OpenError::JournalNotMerged => {
            some("start the server, or run `keystile restore --repair`, before changing anything")
        }
        OpenError::Merge { .. } => None,
    }
}

fn store(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Missing { .. } => some("otherwise create it with `keystile init`"),
        StoreError::SchemaOlder => some("make a backup, then `keystile serve` migrates it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::tokens::IssuanceBlock,
        domain::{OperatorId, UnixSeconds, WatermarkScope},
    };

    #[test]
    fn hint_is_found_through_the_errors_around_it() {
        let blocked = || {
            let scope = WatermarkScope::Operator(OperatorId::random());
            (IssuanceBlock::Watermark(scope), UnixSeconds::EPOCH)
        };
        let (block, until) = blocked();
        let issue = IssueError::Mint(MintError::Blocked(block, until));
        let (block, until) = blocked();
        let create = ApiKeyError::Blocked(block, until);
        let no_database =
            ServeError::Open(OpenError::Store(StoreError::Missing { location: "x".to_owned() }));
        let unknown = CreateAuthKeyError::Account(AccountError::OperatorUnknown);
        for (error, hint) in [
            (&issue as &(dyn Error + 'static), Some("keystile clock repair")),
            (&create, Some("keystile clock repair")),
            (&no_database, Some("keystile init")),
            (&unknown, Some("keystile operator list")),
            (&RevokeError::NotFound, None),
            (&std::fmt::Error, None),
        ] {
            let found = of(error);
            assert_eq!(found.is_some(), hint.is_some(), "{error}: {found:?}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or_default()), "{error}");
        }
    }
}
