//! Creation, which is one statement: whether there is room, who goes for it, and the row.

use std::{num::NonZeroU64, time::Instant};

use sqlx::{Error, Executor as _, Row as _, postgres::PgRow};

use super::{PostgresStore, statements::NAME};
use crate::{
    session::{Issuer, Session},
    store::{
        AtLimit, Created, Limit, StoreError, Terms,
        sql::{self, micros},
    },
};

impl PostgresStore {
    /// [`create`](crate::SessionStore::create), or, unless it `inserts`, [`make_room`](crate::SessionStore::make_room).
    pub(super) async fn insert(
        &self,
        session: &Session,
        terms: &Terms,
        inserts: bool,
    ) -> Result<Created, StoreError> {
        let asked = Instant::now();
        let record = session.record();
        let client = record.client.as_ref();
        let (unused, untouched) = match terms.at_limit {
            AtLimit::Refuse => (None, None),
            AtLimit::Evict { unused, untouched } => (Some(micros(unused)), Some(micros(untouched))),
        };
        let scope = &record.owner.scope;
        let total = terms.total;
        let total = total.filter(|&total| !self.0.counts.take(scope, total, asked));
        let limit = |limit: NonZeroU64| i64::try_from(limit.get()).unwrap_or(i64::MAX);

        let mut held = self.hold("create a session").await?;
        if let Err(error) = held.prepare(self.0.create.clone()).await {
            return held.done(Err(error));
        }
        // So far it has waited for a connection, and, the first time there, for the statement to be prepared: that is part
        // of the creation. The last microsecond is for the rounding.
        let begun = terms.started_ago.saturating_add(asked.elapsed());
        let row = sqlx::query(self.0.create.clone())
            .bind(&session.reference().as_bytes()[..])
            .bind(sql::scope(scope))
            .bind(sql::principal(&record.owner))
            .bind(record.issuer == Issuer::Layer)
            .bind(client.map(|client| client.name.as_bytes()))
            .bind(client.map(|client| client.version.as_bytes()))
            .bind(record.protocol_version.as_deref().map(str::as_bytes))
            .bind(record.initialize_params.as_deref())
            .bind(micros(sql::first_idle(terms)))
            .bind(terms.life.map(micros))
            .bind(total.map(limit))
            .bind(terms.per_principal.map(limit))
            .bind(untouched)
            .bind(micros(begun) + 1)
            .bind(unused)
            .bind(inserts)
            .bind(record.values.to_bytes())
            .fetch_one(&mut *held)
            .await;
        let (created, total) = held.done(row.and_then(|row| created(&row, inserts)))?;
        if let Some(sessions) = total {
            self.0.counts.counted(scope, sessions, asked);
        }
        Ok(created)
    }
}

/// What became of a creation, and how many sessions the scope then has, if they were counted.
fn created(row: &PgRow, inserts: bool) -> Result<(Created, Option<u64>), Error> {
    let is_new = row.try_get("is_new")?;
    let evicted = row.try_get::<Option<Vec<u8>>, _>("evicted")?;
    let has_room = !inserts && row.try_get("has_room")?;
    let created = if is_new || has_room {
        Created::New {
            left: None,
            evicted: evicted.as_deref().map(sql::reference).transpose()?,
        }
    } else if row.try_get("revoked")? {
        Created::Revoked
    } else if row.try_get("taken")? {
        Created::Exists
    } else if row.try_get("principal_full")? {
        Created::Full(Limit::PerPrincipal)
    } else if row.try_get("total_full")? {
        Created::Full(Limit::Total)
    } else {
        // Another creation of this id was faster.
        Created::Exists
    };
    let total = row.try_get::<Option<i64>, _>("total")?;
    Ok((
        created,
        total.map(|total| total.unsigned_abs() + u64::from(is_new)),
    ))
}

/// The statement, with the expression of a reference as it is announced.
pub(super) fn statement() -> String {
    include_str!("create.sql").replace("{name}", NAME)
}
