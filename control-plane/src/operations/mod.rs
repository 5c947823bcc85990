//! The operations: each is one transaction with one audit entry. Short operations on the same subject share a file.
//!
//! The interfaces (API, CLI) call operations only, and nothing below them, so they cannot behave differently.

mod account_error;
mod api_keys;
mod authenticate_edge;
mod await_rollout;
mod clocks;
mod compact_base;
mod compact_journal;
mod create_auth_key;
mod delete_auth_key;
mod delete_operator;
mod delete_user;
mod enroll_edge;
mod exchange;
mod foreign_subjects;
mod initialize;
mod inspect_token;
mod issuance_log;
mod issue_token;
mod issuers;
mod last_seen;
mod list_audit;
mod list_auth_keys;
mod list_edges;
mod logout;
mod mint_token;
mod operator_limits;
mod operators;
mod publication_status;
mod purge;
mod recompute_grants;
mod remove_edge;
mod renew_authority;
mod restore;
mod revoke;
mod roles;
mod rotate_edge;
mod self_test;
mod service;
mod set_permission;
mod signing_keys;
mod symmetric_keys;
mod unrevoke;
mod users;
mod watermark;

pub use account_error::AccountError;
pub use api_keys::{
    ApiKeyError, ApiKeyStatus, CreateApiKey, CreatedApiKey, create_api_key, delete_api_key, disable_api_key,
    enable_api_key, expire_api_keys, find_api_key, list_api_keys, remaining_api_keys, rotate_api_key,
    rotate_tag_key,
};
pub use authenticate_edge::{AuthenticateEdgeError, authenticate_edge};
pub use await_rollout::{RolloutStatus, await_all_edges, await_live_edges};
pub use clocks::{
    ClockConfirmation, ClockError, ClockRepair, check_clock, check_store_clock, instants_ahead, repair_clock,
};
pub use compact_base::{CompactBaseError, Compaction, compact_base, compact_base_if_due};
pub use compact_journal::{compact_journal, compact_journal_if_due};
pub use create_auth_key::{CreateAuthKeyError, CreatedAuthKey, create_auth_key};
pub use delete_auth_key::{DeleteAuthKeyError, delete_auth_key};
pub use delete_operator::delete_operator;
pub use delete_user::{CreatedKeys, CreatedKeysPolicy, DeletedUser, delete_user, keys_created_by};
pub use enroll_edge::{CredentialSource, EnrollEdgeError, EnrolledEdge, enroll_edge};
pub use exchange::{ExchangeError, ExchangedToken, exchange_auth_key};
pub use foreign_subjects::{
    attach_foreign_role, detach_foreign_role, find_foreign_subject, list_foreign_subjects,
    set_foreign_permission,
};
pub use initialize::{
    ExistingKeysPolicy, InitializeError, NewInstallation, initialize, initialize_at, initialize_new,
};
pub use inspect_token::{InspectTokenError, InspectedToken, TokenStatus, inspect_token};
pub use issue_token::{IssueError, IssuedToken, TokenRecipient, issue_token};
pub use issuers::{RefreshError, RefreshMode, RefreshOutcome, list_issuers, refresh_issuer, sync_issuers};
pub(crate) use last_seen::LastSeenRecorder;
pub use list_audit::list_audit;
pub use list_auth_keys::{find_auth_key, list_auth_keys, list_root_auth_keys};
pub use list_edges::{EdgeList, EdgeState, EdgeStatus, bundle_time, list_all_edges, list_edges};
pub use logout::{LogoutError, logout};
pub use mint_token::{InvalidLifetime, IssuanceBlock, Lifetime, MintError};
pub use operator_limits::{InstallationSize, LimitKind, LimitReached, count_installation};
pub use operators::{create_operator, find_operator, list_operators};
pub use publication_status::{PublicationStatus, RecordedPublications};
pub use purge::purge_expired;
pub use remove_edge::{RemoveEdgeError, remove_edge};
pub use renew_authority::{RenewAuthorityError, renew_authority};
pub(crate) use restore::refuse_after_restore;
pub use restore::{
    DatabaseExamination, GapStart, MissingEntries, RepairError, RepairOutcome, StoreRollback,
    examine_database, examine_service, refuse_everything, repair_database,
};
pub use revoke::{AccessScope, DurableRevocation, RevocationOutcome, RevocationTarget, RevokeError, revoke};
pub use roles::{attach_role, create_role, delete_role, detach_role, find_role, list_roles, update_role};
pub use rotate_edge::{OldCredentialEnd, RotateEdgeError, RotatedEdge, rotate_edge};
pub use self_test::self_test_signing_key;
pub use service::{OpenError, ReloadKeysError, Service};
pub use set_permission::set_permission;
pub use signing_keys::{
    SigningKeyError, activate_pending_signing_key, discard_key_files, prune_signing_keys, retire_key,
    retired_key_file, rotate_signing_key,
};
pub use symmetric_keys::symmetric_keys;
pub use unrevoke::{Unrevocation, UnrevokeError, unrevoke, unrevoke_scope};
pub use users::{create_user, find_user, list_users};

pub use crate::store::StoreError;
