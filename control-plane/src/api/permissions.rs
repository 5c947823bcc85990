//! What a caller must be allowed for which route. The own API asks the gate that it ships: the root user may do
//! everything in its operator, a user what its grant allows, and everybody may log out.

/// Method, path and permission of every route that takes a token; a route that is not here refuses everybody.
pub(super) const TABLE: &str = "\
POST\t/v1/auth/logout\tAuth:logout
GET\t/v1/operators/{operator_id}/auth_keys\tOperator:listOperatorAuthKeys
POST\t/v1/operators/{operator_id}/auth_keys\tOperator:generateOperatorAuthKey
DELETE\t/v1/operators/{operator_id}/auth_keys/{auth_key_id}\tOperator:deleteOperatorAuthKey
POST\t/revocations\tRevocation:createRevocation
";
