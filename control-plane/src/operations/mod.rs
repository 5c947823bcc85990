//! The operations: each is one transaction with one audit entry. Short operations on the same subject share a file.
//!
//! The interfaces (API, CLI) call operations only, and nothing below them, so they cannot behave differently.

mod account_error;
mod api_keys;
mod authenticate_edge;
mod await_fleet;
mod await_published;
mod clocks;
mod collect;
mod compact_journal;
mod create_auth_key;
mod delete_auth_key;
mod delete_operator;
mod delete_user;
mod enroll_edge;
mod exchange;
mod initialize;
mod inspect_token;
mod issuance_log;
mod issue;
mod issuers;
mod list_audit;
mod list_auth_keys;
mod list_edges;
mod logout;
mod mint;
mod operator_limits;
mod operators;
mod permit;
mod rebase;
mod recompute_grants;
mod rehearse;
mod remove_edge;
mod renew_authority;
mod restore;
mod revoke;
mod roles;
mod rotate_edge;
mod service;
mod signing_keys;
mod symmetric_keys;
mod unrevoke;
mod usage;
mod users;
mod watermark;

pub use account_error::AccountError;
pub use api_keys::{
    ApiKeyError, ApiKeyOrder, ApiKeyStanding, CreatedApiKey, create_api_key, delete_api_key, disable_api_key,
    enable_api_key, expire_api_keys, find_api_key, list_api_keys, remaining_api_keys, rotate_api_key,
    rotate_tag_key,
};
pub use authenticate_edge::{AuthenticateEdgeError, authenticate_edge};
pub use await_fleet::{Reached, await_everywhere, await_fleet};
pub use await_published::{Publication, Publishing};
pub use clocks::{
    ClockError, ClockRepaired, Confirmed, check_clock, check_store_clock, instants_ahead, repair_clock,
};
pub use collect::collect;
pub use compact_journal::{compact_journal, compact_journal_if_due};
pub use create_auth_key::{CreateAuthKeyError, CreatedAuthKey, create_auth_key};
pub use delete_auth_key::{DeleteAuthKeyError, delete_auth_key};
pub use delete_operator::delete_operator;
pub use delete_user::{CreatedByUser, CreatedKeys, DeletedUser, delete_user, keys_created_by};
pub use enroll_edge::{CredentialFrom, EnrollEdgeError, EnrolledEdge, enroll_edge};
pub use exchange::{ExchangeError, Exchanged, exchange};
pub use initialize::{BesideKeys, InitializeError, Initialized, initialize, initialize_anew, initialize_at};
pub use inspect_token::{InspectTokenError, InspectedToken, TokenStanding, inspect_token};
pub use issue::{Bearer, IssueError, Issued, issue};
pub use issuers::{RefreshError, Refreshed, Wanted, adopt_issuers, list_issuers, refresh_issuer};
pub use list_audit::list_audit;
pub use list_auth_keys::{find_auth_key, list_auth_keys, list_root_auth_keys};
pub use list_edges::{EdgeState, Fleet, Member, bundle_of, list_all_edges, list_edges};
pub use logout::{LogoutError, logout};
pub use mint::{BadLifetime, Blocked, Lifetime, MintError};
pub use operator_limits::{LimitReached, Limited, Load, load};
pub use operators::{create_operator, find_operator, list_operators};
pub use permit::permit;
pub use rebase::{RebaseError, Rebased, rebase, rebase_if_due};
pub use rehearse::rehearse;
pub use remove_edge::{RemoveEdgeError, remove_edge};
pub use renew_authority::{RenewAuthorityError, renew_authority};
pub(crate) use restore::refuse_again;
pub use restore::{
    Examined, Missing, RepairError, Repaired, Started, WentBack, examine, refuse_everything, repair, standing,
};
pub use revoke::{Authority, RevokeError, Revoked, Target, What, revoke};
pub use roles::{attach_role, create_role, delete_role, detach_role, find_role, list_roles, update_role};
pub use rotate_edge::{OldCredential, RotateEdgeError, RotatedEdge, rotate_edge};
pub use service::{OpenError, Service, TakeUpError};
pub use signing_keys::{
    SigningKeyError, discard_key_files, forget_signing_keys, promote_signing_key, retire_key,
    retired_key_file, rotate_signing_key,
};
pub use symmetric_keys::symmetric_keys;
pub use unrevoke::{UnrevokeError, Unrevoked, unrevoke};
pub(crate) use usage::Usage;
pub use users::{create_user, find_user, list_users};

pub use crate::store::StoreError;
