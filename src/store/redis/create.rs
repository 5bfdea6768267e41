//! Creation: one script on one server; on a cluster the other shards are asked first.

use std::{
    num::NonZeroU64,
    sync::LazyLock,
    time::{Duration, Instant},
};

use ::redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, from_redis_value};

use super::{
    ALLOW_OOM, COMMON, DENY_OOM, RedisStore,
    connection::Script,
    directory::SHARDS,
    fields::{filter, hex, reference, write},
    microseconds, milliseconds,
};
use crate::{
    protocol::SessionRef,
    session::{Owner, Session},
    store::{AtLimit, Created, EndReason, Limit, Terms},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the server is of a cluster, where no script may touch two shards. Learnt from its first refusal.
#[derive(Default)]
pub(super) struct Cluster(AtomicBool);

/// What is to be created, and on what terms.
struct Creation<'a> {
    session: &'a Session,
    terms: &'a Terms,
    /// Or else only room is made for it.
    inserts: bool,
    /// Since when.
    asked: Instant,
    /// Its reference, in digits.
    name: String,
    /// Its scope and owner in the index.
    filter: String,
}

impl RedisStore {
    /// [`create`](crate::SessionStore::create), or, unless it `inserts`, [`make_room`](crate::SessionStore::make_room).
    pub(super) async fn create_within(
        &self,
        session: &Session,
        terms: &Terms,
        inserts: bool,
    ) -> RedisResult<Created> {
        let creation = Creation {
            session,
            terms,
            inserts,
            asked: Instant::now(),
            name: hex(session.reference().as_bytes()),
            filter: filter(session.owner()),
        };
        let mut victim = None;
        loop {
            let on_cluster = self.cluster.0.load(Ordering::Relaxed);
            let elsewhere = match on_cluster && creation.is_limited() {
                true => self.count_elsewhere(&creation).await?,
                false => [0, 0],
            };
            match self.try_create(&creation, on_cluster, elsewhere).await {
                Err(error) if is_cross_slot(&error) && !on_cluster => {
                    self.cluster.0.store(true, Ordering::Relaxed);
                }
                // There were too many expired entries to remove in one step.
                Ok(None) => {}
                Ok(Some(Created::Full(limit))) if on_cluster && victim.is_none() => {
                    victim = self.evict_anywhere(&creation, limit).await?;
                    if victim.is_none() {
                        return Ok(Created::Full(limit));
                    }
                }
                Ok(Some(Created::New { .. })) if on_cluster => {
                    return Ok(Created::New {
                        left: None,
                        evicted: victim,
                    });
                }
                Ok(Some(created)) => return Ok(created),
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs the script, which counts all shards, or on a cluster its own and what there is elsewhere. `None`: ask again.
    async fn try_create(
        &self,
        creation: &Creation<'_>,
        on_cluster: bool,
        elsewhere: [u64; 2],
    ) -> RedisResult<Option<Created>> {
        static CREATE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(&[
                DENY_OOM,
                COMMON,
                include_str!("sample.lua"),
                include_str!("create.lua"),
            ])
        });
        let (
            Creation {
                terms,
                name,
                filter,
                ..
            },
            shard,
        ) = (creation, self.shard(&creation.name[..1]));
        let mut keys = vec![
            format!("{shard}s:{name}"),
            shard.all_ended(&filter[..16]),
            shard.all_ended(filter),
        ];
        keys.extend(shard.index());
        if creation.is_limited() && !on_cluster {
            keys.extend(others(name).flat_map(|digit| self.shard(digit).index()));
        }
        let patience = creation.patience().filter(|_| !on_cluster);
        let answer = CREATE
            .run(&self.connection, &keys, |command| {
                command
                    .arg(filter)
                    .arg(milliseconds(creation.first_idle()))
                    .arg(or_empty(terms.life.map(milliseconds)))
                    .arg(milliseconds(terms.idle) / 4)
                    .arg(microseconds(creation.begun()))
                    .arg(or_empty(terms.total))
                    .arg(elsewhere[0])
                    .arg(or_empty(creation.per_principal()))
                    .arg(elsewhere[1])
                    .arg(or_empty(patience.map(|[unused, _]| unused)))
                    .arg(or_empty(patience.map(|[_, untouched]| untouched)))
                    .arg(creation.owner_of_victim(Limit::Total))
                    .arg(self.channel())
                    .arg(if creation.inserts { "1" } else { "" });
                write(command, &creation.session.record());
            })
            .await?;
        let (outcome, left, victim, all_ended): (String, i64, Option<String>, i64) =
            from_redis_value(answer)?;
        Ok(match outcome.as_str() {
            // The command may have been long on its way, and its owner's sessions been ended meanwhile.
            "new"
                if creation.inserts
                    && (0..=microseconds(creation.begun())).contains(&all_ended) =>
            {
                self.end_session(creation.session.reference(), None, None, EndReason::Revoked)
                    .await?;
                Some(Created::Revoked)
            }
            "new" => Some(Created::New {
                left: left.try_into().ok(),
                evicted: victim.and_then(|name| reference(&name)),
            }),
            "exists" => Some(Created::Exists),
            "revoked" => Some(Created::Revoked),
            "full:principal" => Some(Created::Full(Limit::PerPrincipal)),
            "full:total" => Some(Created::Full(Limit::Total)),
            _ => None,
        })
    }

    /// How many sessions the scope and the owner have in the other shards.
    async fn count_elsewhere(&self, creation: &Creation<'_>) -> RedisResult<[u64; 2]> {
        let prefixes = [Limit::Total, Limit::PerPrincipal].map(|limit| creation.among(limit));
        let mut sum = [0, 0];
        for digit in others(&creation.name) {
            let there = self.count_in(digit, &prefixes).await?;
            sum = [sum[0] + there[0], sum[1] + there[1]];
        }
        Ok(sum)
    }

    /// On a cluster: ends the session that may go and was longest untouched, of a sample of each shard.
    async fn evict_anywhere(
        &self,
        creation: &Creation<'_>,
        limit: Limit,
    ) -> RedisResult<Option<SessionRef>> {
        static OLDEST: LazyLock<Script> = LazyLock::new(|| {
            Script::new(&[
                ALLOW_OOM,
                COMMON,
                include_str!("sample.lua"),
                include_str!("oldest.lua"),
            ])
        });
        static EVICT: LazyLock<Script> = LazyLock::new(|| {
            Script::new(&[
                ALLOW_OOM,
                COMMON,
                include_str!("sample.lua"),
                include_str!("evict.lua"),
            ])
        });
        let Some([unused, untouched]) = creation.patience() else {
            return Ok(None);
        };
        let owner = creation.owner_of_victim(limit);
        let among = format!("o{owner}");
        let mut oldest: Option<(bool, i64, String)> = None;
        for digit in SHARDS {
            let answer = OLDEST
                .run(&self.connection, &self.shard(digit).index(), |command| {
                    command
                        .arg(&among)
                        .arg(&creation.name)
                        .arg(unused)
                        .arg(untouched);
                })
                .await?;
            // Without any request since its creation, then the longest untouched: the order of the tuple.
            oldest = oldest.max(from_redis_value(answer)?);
        }
        let Some(victim) = oldest.and_then(|(_, _, name)| reference(&name)) else {
            return Ok(None);
        };
        let answer = EVICT
            .run(&self.connection, &self.keys(&victim), |command| {
                command
                    .arg(unused)
                    .arg(untouched)
                    .arg(self.channel())
                    .arg(&owner);
            })
            .await?;
        Ok(from_redis_value::<bool>(answer)?.then_some(victim))
    }
}

impl Creation<'_> {
    fn is_limited(&self) -> bool {
        self.terms.total.is_some() || self.per_principal().is_some()
    }

    /// Nobody is not a principal.
    fn per_principal(&self) -> Option<NonZeroU64> {
        let somebody = self.session.owner().principal.is_some();
        self.terms.per_principal.filter(|_| somebody)
    }

    /// How long it lives without a request.
    fn first_idle(&self) -> Duration {
        let unused = self.terms.idle.min(self.terms.initial_idle);
        self.terms.life.map_or(unused, |life| life.min(unused))
    }

    /// How long ago it began, by now.
    fn begun(&self) -> Duration {
        self.terms.started_ago.saturating_add(self.asked.elapsed())
    }

    /// Microseconds unused, and untouched, for which a session may be evicted.
    fn patience(&self) -> Option<[i64; 2]> {
        match self.terms.at_limit {
            AtLimit::Refuse => None,
            AtLimit::Evict { unused, untouched } => Some([unused, untouched].map(microseconds)),
        }
    }

    /// Whose session may go at this limit, as in the index: for somebody else's no principal's is ended.
    fn owner_of_victim(&self, limit: Limit) -> String {
        match limit {
            Limit::Total => filter(&Owner {
                principal: None,
                ..self.session.owner().clone()
            }),
            Limit::PerPrincipal => self.filter.clone(),
        }
    }

    /// What the entries of those begin with that count for this limit.
    fn among(&self, limit: Limit) -> String {
        match limit {
            Limit::Total => format!("s{}", &self.filter[..16]),
            Limit::PerPrincipal => format!("o{}", self.filter),
        }
    }
}

/// The shards that this reference is not in.
fn others(name: &str) -> impl Iterator<Item = &'static str> {
    SHARDS.into_iter().filter(|digit| !name.starts_with(digit))
}

fn is_cross_slot(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
}

fn or_empty(number: Option<impl ToString>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}
