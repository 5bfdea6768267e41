//! The statements of the busy verbs, and what the others have in common with them.

/// A statement that reads a session with its parameters.
pub(super) fn load() -> String {
    format!("{} and expires > {NOW}", read())
}

/// A statement that reads a row, also of a session whose time is up: what it has left is then zero or less.
pub(super) fn read() -> String {
    format!(
        "select reference, scope, principal, initialize_params, {ANSWER}
        from \"mcp_sessions\" left join \"mcp_sessions_params\" using (reference)
        where reference = ?1"
    )
}

/// A statement that writes a live session's values in place of these.
pub(super) fn replace() -> String {
    format!(
        "insert into \"mcp_sessions_values\" (reference, named_values)
        select ?1, ?4 from \"mcp_sessions\"
        where reference = ?1 and scope = ?2 and principal is ?3 and expires > {NOW}
            and (select named_values from \"mcp_sessions_values\" where reference = ?1) is ?5
        on conflict (reference) do update set named_values = excluded.named_values
        returning reference"
    )
}

/// A statement that ends the sessions of this condition, by writing their ends down: a trigger does the rest.
pub(super) fn end(condition: &str, reason: &str) -> String {
    format!(
        "insert into \"mcp_sessions_ends\" (reference, reason)
        select reference, {reason} from \"mcp_sessions\" where {condition}
        returning reference"
    )
}

/// A statement that finds a session whose touch need not be written.
pub(super) fn fresh() -> String {
    format!(
        "select {ANSWER} from \"mcp_sessions\"
        where reference = ?1 and scope = ?2 and principal is ?3
            and used and latest_touch > {NOW} and expires >= {NOW} + ?4 and expires > {NOW}"
    )
}

/// A statement that writes a touch.
pub(super) fn touch() -> String {
    extend("used = true", "principal is ?3")
}

/// A statement that changes the owner, and always extends.
pub(super) fn claim() -> String {
    extend(
        "used = true, principal = ?3",
        "(principal is null or principal is ?3)",
    )
}

/// A statement that extends the sessions of this condition.
fn extend(set: &str, condition: &str) -> String {
    format!(
        "update \"mcp_sessions\" set {set}, latest_touch = max(latest_touch, {NOW} + ?5), expires = max(
            expires, min({NOW} + ?4 + ?5, coalesce(life_ends, {NOW} + ?4 + ?5))
        )
        where reference = ?1 and scope = ?2 and {condition} and expires > {NOW}
        returning {ANSWER}"
    )
}

/// Milliseconds since 1970. Within a statement it is always the same.
macro_rules! now {
    () => {
        "cast(round(unixepoch('subsec') * 1000) as integer)"
    };
}

pub(super) const NOW: &str = now!();

/// What a touch answers: of a row whose key and owner are known.
pub(super) const ANSWER: &str = concat!(
    "by_layer, client_name, client_version, protocol_version, (",
    "select named_values from \"mcp_sessions_values\" as kept",
    " where kept.reference = \"mcp_sessions\".reference) as named_values,",
    "(",
    now!(),
    " - created) * 1000 as age,",
    "(expires - ",
    now!(),
    ") * 1000 as idle_left,",
    "(life_ends - ",
    now!(),
    ") * 1000 as life_left",
);
