//! Lists, counts and mass ends: shard by shard, a page at a time, so that the server is never held up.

use std::{sync::LazyLock, time::Duration};

use ::redis::{RedisResult, from_redis_value};

use super::{
    ALLOW_OOM, COMMON, RedisStore,
    connection::{Script, failed, unreadable},
    fields::{Row, filter, hex, principal_field, read, reference, scope_key},
    milliseconds,
};
use crate::{
    protocol::SessionRef,
    session::Scope,
    store::{
        BoxFuture, Directory, EndReason, SessionFilter, SessionInfo, StoreError, StoreErrorKind,
    },
};

impl Directory for RedisStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let prefix = prefix(filter);
            let mut sum = 0;
            for digit in SHARDS {
                let [there, _] = self
                    .count_in(digit, &[&prefix, &prefix])
                    .await
                    .map_err(failed("count sessions"))?;
                sum += there;
            }
            Ok(sum)
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(self.page(filter, after, at_most))
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            self.end_session(reference, Some(scope), None, reason)
                .await
                .map_err(failed("end a session"))
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut ended = 0;
            for digit in SHARDS {
                ended += self.end_all_in(digit, filter, reason).await?;
            }
            Ok(ended)
        })
    }
}

impl RedisStore {
    /// Ends a session, of this scope if one is given.
    pub(super) async fn end_session(
        &self,
        reference: &SessionRef,
        scope: Option<&Scope>,
        left: Option<Duration>,
        reason: EndReason,
    ) -> RedisResult<bool> {
        static END: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("end.lua")]));
        let answer = END
            .run(&self.connection, &self.keys(reference), |command| {
                command
                    .arg(self.channel())
                    .arg(reason.as_str())
                    .arg(scope.map_or(String::new(), |scope| format!("={scope}")))
                    .arg(left.map_or(String::new(), |left| milliseconds(left).to_string()));
            })
            .await?;
        Ok(from_redis_value(answer)?)
    }

    /// How many live sessions of a shard each of these has.
    pub(super) async fn count_in(
        &self,
        digit: &str,
        prefixes: &[impl AsRef<str>; 2],
    ) -> RedisResult<[u64; 2]> {
        static COUNT: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("count.lua")]));
        loop {
            let answer = COUNT
                .run(&self.connection, &self.shard(digit).index(), |command| {
                    command.arg(prefixes[0].as_ref()).arg(prefixes[1].as_ref());
                })
                .await?;
            let (again, one, other): (bool, u64, u64) = from_redis_value(answer)?;
            if !again {
                return Ok([one, other]);
            }
        }
    }

    async fn page(
        &self,
        filter: &SessionFilter,
        after: Option<&SessionRef>,
        at_most: usize,
    ) -> Result<Vec<SessionInfo>, StoreError> {
        static LIST: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("list.lua")]));
        const DOING: &str = "list sessions";
        let prefix = prefix(filter);
        let after = after.map_or(String::new(), |after| hex(after.as_bytes()));
        let mut listed = Vec::new();
        for digit in SHARDS {
            if digit < after.get(..1).unwrap_or_default() {
                continue;
            }
            let mut cursor = after.clone();
            while listed.len() < at_most {
                let most = PAGE.min(at_most - listed.len());
                let answer = LIST
                    .run(&self.connection, &self.shard(digit).index(), |command| {
                        command.arg(&prefix).arg(&cursor).arg(most);
                    })
                    .await
                    .map_err(failed(DOING))?;
                let (read_there, last, rows): (usize, String, Vec<(String, Row)>) =
                    from_redis_value(answer).map_err(unreadable(DOING))?;
                for (name, row) in rows {
                    let (record, times) = read(row, DOING)?;
                    // The index knows owners by a short digest.
                    if filter.includes(&record.owner) {
                        listed.push(SessionInfo {
                            reference: reference(&name)
                                .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, DOING))?,
                            record,
                            age: times.age,
                            idle_left: times.idle_left,
                            life_left: times.life_left,
                        });
                    }
                }
                if read_there < most {
                    break;
                }
                cursor = last;
            }
        }
        Ok(listed)
    }

    async fn end_all_in(
        &self,
        digit: &str,
        filter: &SessionFilter,
        reason: EndReason,
    ) -> Result<u64, StoreError> {
        static END_ALL: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[ALLOW_OOM, COMMON, include_str!("end_all.lua")]));
        const DOING: &str = "end all sessions of an owner";
        let shard = self.shard(digit);
        let [due, index] = shard.index();
        let prefix = prefix(filter);
        let keys = [due, index, shard.all_ended(&prefix[1..])];
        let principal = match filter {
            SessionFilter::Scope(_) => String::new(),
            SessionFilter::Owner(owner) => principal_field(owner),
        };
        let mut remember = REMEMBER_MS;
        let mut cursor = String::new();
        let mut ended = 0;
        loop {
            let answer = END_ALL
                .run(&self.connection, &keys, |command| {
                    command
                        .arg(&prefix)
                        .arg(&cursor)
                        .arg(PAGE)
                        .arg(filter.scope().as_str())
                        .arg(&principal)
                        .arg(self.channel())
                        .arg(reason.as_str())
                        .arg(remember);
                })
                .await
                .map_err(failed(DOING))?;
            let (read_there, last, ended_there): (usize, String, u64) =
                from_redis_value(answer).map_err(unreadable(DOING))?;
            ended += ended_there;
            if read_there < PAGE {
                return Ok(ended);
            }
            cursor = last;
            remember = "";
        }
    }
}

/// What the entries of the index begin with.
fn prefix(of: &SessionFilter) -> String {
    match of {
        SessionFilter::Scope(scope) => format!("s{}", scope_key(scope)),
        SessionFilter::Owner(owner) => format!("o{}", filter(owner)),
    }
}

/// The shards in the order of the references in them.
pub(super) const SHARDS: [&str; 16] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f",
];

/// How many entries one script looks at.
const PAGE: usize = 200;

/// How long it is remembered that all were ended: longer than any creation takes.
const REMEMBER_MS: &str = "3600000";
