//! Operators, users, roles and permissions.

pub mod delete_operator;
pub mod delete_user;
pub mod error;
pub mod foreign_subjects;
pub mod grants;
pub mod operators;
pub mod permissions;
mod queries;
pub mod roles;
pub mod users;

pub use delete_operator::delete_operator;
pub use delete_user::{CreatedKeys, CreatedKeysPolicy, DeletedUser, delete_user, keys_created_by};
pub use error::AccountError;
pub use foreign_subjects::{
    attach_foreign_role, detach_foreign_role, find_foreign_subject, list_foreign_subjects,
    set_foreign_permission,
};
pub use operators::{create_operator, find_operator, list_operators};
pub use permissions::set_permission;
pub use roles::{attach_role, create_role, delete_role, detach_role, find_role, list_roles, update_role};
pub use users::{create_user, find_user, list_users};
