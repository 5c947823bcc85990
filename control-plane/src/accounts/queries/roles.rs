use sqlx::{any::AnyRow, query};

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{OperatorId, Page, PageRequest, Role, RoleId, UnixSeconds, UserName},
};

/// Inserts a role. Returns whether the name was free.
pub(in crate::accounts) async fn insert(write: &mut Write, role: &Role) -> Result<bool, StoreError> {
    let Role { operator, id, description, permission, created_at, updated_at } = role;
    let done = query(
        "INSERT INTO roles (operator_id, role_id, description, permission, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(operator.as_str())
    .bind(id.as_str())
    .bind(description.as_deref())
    .bind(permission.as_str())
    .bind(row::to_column(*created_at))
    .bind(row::to_column(*updated_at))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces the permissions of a role, and its description if one is given. Returns whether the role exists.
pub(in crate::accounts) async fn update(
    write: &mut Write,
    operator: &OperatorId,
    id: &RoleId,
    description: Option<&str>,
    permission: &str,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE roles SET permission = $3, description = COALESCE($4, description), updated_at = $5 \
         WHERE operator_id = $1 AND role_id = $2",
    )
    .bind(operator.as_str())
    .bind(id.as_str())
    .bind(permission)
    .bind(description)
    .bind(row::to_column(at))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a role with its attachments, or all roles of the operator. Returns their number.
pub(in crate::accounts) async fn delete(
    write: &mut Write,
    operator: &OperatorId,
    id: Option<&RoleId>,
) -> Result<u64, StoreError> {
    let name = id.map_or("", RoleId::as_str);
    query("DELETE FROM user_roles WHERE operator_id = $1 AND ($2 = '' OR role_id = $2)")
        .bind(operator.as_str())
        .bind(name)
        .execute(write.connection())
        .await?;
    let done = query("DELETE FROM roles WHERE operator_id = $1 AND ($2 = '' OR role_id = $2)")
        .bind(operator.as_str())
        .bind(name)
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Returns one role or all roles of an operator, in the order of their names.
pub(in crate::accounts) async fn list(
    executor: &mut impl Executor,
    operator: &OperatorId,
    id: Option<&RoleId>,
) -> Result<Vec<Role>, StoreError> {
    let rows = query(
        "SELECT operator_id, role_id, description, permission, created_at, updated_at FROM roles \
         WHERE operator_id = $1 AND ($2 = '' OR role_id = $2) ORDER BY role_id",
    )
    .bind(operator.as_str())
    .bind(id.map_or("", RoleId::as_str))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns a page of the roles of an operator in the order of their names.
pub(in crate::accounts) async fn page(
    executor: &mut impl Executor,
    operator: &OperatorId,
    page: &PageRequest,
) -> Result<Page<Role>, StoreError> {
    let rows = query(
        "SELECT operator_id, role_id, description, permission, created_at, updated_at FROM roles \
         WHERE operator_id = $1 AND ($2 = '' OR role_id > $2) ORDER BY role_id LIMIT $3",
    )
    .bind(operator.as_str())
    .bind(page.after().unwrap_or(""))
    .bind(page.rows())
    .fetch_all(executor.connection())
    .await?;
    let roles = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(roles, |role| role.id.to_string()))
}

/// Counts the roles of an operator, up to `limit`.
pub async fn count(
    executor: &mut impl Executor,
    operator: &OperatorId,
    limit: u64,
) -> Result<u64, StoreError> {
    let statement = "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM roles WHERE operator_id = $1 LIMIT $2) AS counted";
    row::count_up_to(executor, statement, operator.as_str(), limit).await
}

/// Attaches a role to a user. Returns whether it was not attached before.
pub(in crate::accounts) async fn attach(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    id: &RoleId,
) -> Result<bool, StoreError> {
    let done = query(
        "INSERT INTO user_roles (operator_id, user_name, role_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(operator.as_str())
    .bind(user.as_str())
    .bind(id.as_str())
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Detaches a role from a user. Returns whether it was attached.
pub(in crate::accounts) async fn detach(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    id: &RoleId,
) -> Result<bool, StoreError> {
    let done = query("DELETE FROM user_roles WHERE operator_id = $1 AND user_name = $2 AND role_id = $3")
        .bind(operator.as_str())
        .bind(user.as_str())
        .bind(id.as_str())
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the users with their roles, of one user or of all users of the operator.
pub(in crate::accounts) async fn attached(
    executor: &mut impl Executor,
    operator: &OperatorId,
    user: Option<&UserName>,
) -> Result<Vec<(UserName, RoleId)>, StoreError> {
    let rows = query(
        "SELECT user_name, role_id FROM user_roles WHERE operator_id = $1 AND ($2 = '' OR user_name = $2) \
         ORDER BY user_name, role_id",
    )
    .bind(operator.as_str())
    .bind(user.map_or("", UserName::as_str))
    .fetch_all(executor.connection())
    .await?;
    rows.iter()
        .map(|from| Ok((row::parsed_text(from, "user_name")?, row::parsed_text(from, "role_id")?)))
        .collect()
}

fn parse_row(from: &AnyRow) -> Result<Role, StoreError> {
    Ok(Role {
        operator: row::parsed_text(from, "operator_id")?,
        id: row::parsed_text(from, "role_id")?,
        description: row::optional_text(from, "description")?,
        permission: row::text(from, "permission")?,
        created_at: row::from_column(from, "created_at")?,
        updated_at: row::from_column(from, "updated_at")?,
    })
}
