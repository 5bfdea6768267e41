//! Changing a session's values.

use std::sync::LazyLock;

use ::redis::from_redis_value;

use super::{
    ALLOW_OOM, COMMON, RedisStore,
    connection::{Script, failed, unreadable},
    fields::principal_field,
};
use crate::{
    protocol::SessionId,
    session::Owner,
    store::{
        StoreError,
        replace::{DOING, Replace},
    },
};

impl Replace for RedisStore {
    async fn replace(
        &self,
        id: &SessionId,
        owner: &Owner,
        before: Option<Vec<u8>>,
        after: Vec<u8>,
    ) -> Result<bool, StoreError> {
        static CHANGE: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("change.lua")]));
        let [session, ..] = self.keys(&id.reference());
        let before = before.map_or(Vec::new(), |before| [b"=", &before[..]].concat());
        let answer = CHANGE
            .run(&self.connection, &[session], |command| {
                command
                    .arg(owner.scope.as_str())
                    .arg(principal_field(owner))
                    .arg(&before)
                    .arg(&after)
                    .arg(self.channel());
            })
            .await
            .map_err(failed(DOING))?;
        from_redis_value(answer).map_err(unreadable(DOING))
    }
}
