use sqlx::{any::AnyRow, query};

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{InvalidPageRequest, OperatorId, Page, PageRequest, TombstoneKind, User, UserName},
    journal::tombstones,
};

/// Returns one user, all users of an operator, or all users, in the order of operators and names.
pub(in crate::accounts) async fn list(
    executor: &mut impl Executor,
    operator: Option<&OperatorId>,
    user: Option<&UserName>,
) -> Result<Vec<User>, StoreError> {
    let rows = query(
        "SELECT operator_id, name AS user_name, description, permission, created_at FROM users \
         WHERE ($1 = '' OR operator_id = $1) AND ($2 = '' OR name = $2) ORDER BY operator_id, name",
    )
    .bind(operator.map_or("", OperatorId::as_str))
    .bind(user.map_or("", UserName::as_str))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Finds a user.
pub async fn find(
    executor: &mut impl Executor,
    operator: &OperatorId,
    user: &UserName,
) -> Result<Option<User>, StoreError> {
    Ok(list(executor, Some(operator), Some(user)).await?.pop())
}

/// Returns a page of the users of an operator or of all, in the order of operators and names.
pub(in crate::accounts) async fn page(
    executor: &mut impl Executor,
    operator: Option<&OperatorId>,
    page: &PageRequest,
) -> Result<Page<User>, StoreError> {
    // The page begins after this subject.
    let (after_operator, after_name) =
        page.after().map_or(Ok(("", "")), |after| after.split_once('/').ok_or(InvalidPageRequest::After))?;
    let rows = query(
        "SELECT operator_id, name AS user_name, description, permission, created_at FROM users \
         WHERE ($1 = '' OR operator_id = $1) \
         AND ($2 = '' OR operator_id > $2 OR (operator_id = $2 AND name > $3)) \
         ORDER BY operator_id, name LIMIT $4",
    )
    .bind(operator.map_or("", OperatorId::as_str))
    .bind(after_operator)
    .bind(after_name)
    .bind(page.rows())
    .fetch_all(executor.connection())
    .await?;
    let users = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(users, |user| user.subject.to_string()))
}

/// Counts the users of an operator, up to `limit`.
pub async fn count(
    executor: &mut impl Executor,
    operator: &OperatorId,
    limit: u64,
) -> Result<u64, StoreError> {
    let statement = "SELECT COUNT(*) AS number FROM (SELECT 1 AS one FROM users WHERE operator_id = $1 LIMIT $2) AS counted";
    row::count_up_to(executor, statement, operator.as_str(), limit).await
}

/// Sets the description of a user.
pub(in crate::accounts) async fn set_description(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    description: Option<&str>,
) -> Result<(), StoreError> {
    query("UPDATE users SET description = $3 WHERE operator_id = $1 AND name = $2")
        .bind(operator.as_str())
        .bind(user.as_str())
        .bind(description)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Sets or removes the permission document of a user. Returns whether the user exists.
pub(in crate::accounts) async fn set_permissions(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    document: Option<&str>,
) -> Result<bool, StoreError> {
    let done = query("UPDATE users SET permission = $3 WHERE operator_id = $1 AND name = $2")
        .bind(operator.as_str())
        .bind(user.as_str())
        .bind(document)
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a user with its roles, or all users of the operator. Returns their number.
pub async fn delete(
    write: &mut Write,
    operator: &OperatorId,
    user: Option<&UserName>,
) -> Result<u64, StoreError> {
    let name = user.map_or("", UserName::as_str);
    query("DELETE FROM user_roles WHERE operator_id = $1 AND ($2 = '' OR user_name = $2)")
        .bind(operator.as_str())
        .bind(name)
        .execute(write.connection())
        .await?;
    let gone = query(
        "DELETE FROM users WHERE operator_id = $1 AND ($2 = '' OR name = $2) \
         RETURNING operator_id, name AS user_name, created_at",
    )
    .bind(operator.as_str())
    .bind(name)
    .fetch_all(write.connection())
    .await?;
    for from in &gone {
        let (subject, at) = (row::subject(from)?.to_string(), row::from_column(from, "created_at")?);
        tombstones::insert(write, TombstoneKind::User, &subject, at).await?;
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

fn parse_row(from: &AnyRow) -> Result<User, StoreError> {
    Ok(User {
        subject: row::subject(from)?,
        description: row::optional_text(from, "description")?,
        permission: row::optional_text(from, "permission")?,
        created_at: row::from_column(from, "created_at")?,
    })
}
