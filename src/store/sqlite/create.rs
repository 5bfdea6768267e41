//! A creation. SQLite cannot delete and insert in one statement, so it is a transaction.

use std::{sync::Arc, time::Instant};

use sqlx::{
    Connection as _, Error, Row as _, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow,
};

use super::{
    Inner, SqliteStore, finished, millis,
    statements::{NOW, end},
};
use crate::{
    protocol::SessionRef,
    session::{Issuer, Session},
    store::{AtLimit, Created, EndReason, Limit, StoreError, Terms, sql},
};

impl SqliteStore {
    /// [`create`](crate::SessionStore::create), or, unless it `inserts`, [`make_room`](crate::SessionStore::make_room).
    pub(super) async fn create_within(
        &self,
        session: &Session,
        terms: &Terms,
        inserts: bool,
    ) -> Result<Created, StoreError> {
        let (inner, session, terms) = (Arc::clone(&self.0), session.clone(), terms.clone());
        let asked = Instant::now();
        let doing = match inserts {
            true => "create a session",
            false => "make room for a session",
        };
        finished(doing, async move {
            inner.create(&session, &terms, inserts, asked).await
        })
        .await
    }
}

impl Inner {
    async fn create(
        &self,
        session: &Session,
        terms: &Terms,
        inserts: bool,
        asked: Instant,
    ) -> Result<Created, Error> {
        let mut connection = self.writer.pool().acquire().await?;
        // Waits here until nobody else writes, and not halfway.
        let transaction = connection.begin_with("begin immediate").await?;
        let created = self
            .decide(transaction, session, terms, inserts, asked)
            .await;
        if created.is_err() {
            // When the disk is full SQLite rolls back by itself. `sqlx` then tries it in vain, believes to be in a
            // transaction ever after, and begins no other.
            connection.close_on_drop();
        }
        created
    }

    async fn decide(
        &self,
        mut transaction: Transaction<'_, Sqlite>,
        session: &Session,
        terms: &Terms,
        inserts: bool,
        asked: Instant,
    ) -> Result<Created, Error> {
        let facts = self.facts(&mut transaction, session, terms, asked).await?;
        if facts.revoked {
            return Ok(Created::Revoked);
        }
        if facts.taken {
            return Ok(Created::Exists);
        }
        let mut evicted = Vec::new();
        if let Some(limit) = facts.reached(terms) {
            if let AtLimit::Evict { unused, untouched } = terms.at_limit {
                let patience = [unused, untouched].map(millis);
                evicted = self
                    .evict(&mut transaction, session, limit, patience)
                    .await?;
            }
            if evicted.is_empty() {
                return Ok(Created::Full(limit));
            }
        }
        if inserts {
            self.insert(&mut transaction, session, terms).await?;
        }
        transaction.commit().await?;

        self.announce();
        let live = (facts.total + u64::from(inserts)).saturating_sub(evicted.len() as u64);
        Ok(Created::New {
            left: terms.total.map(|limit| limit.get().saturating_sub(live)),
            evicted: evicted.first().map(reference).transpose()?,
        })
    }

    async fn facts(
        &self,
        connection: &mut SqliteConnection,
        session: &Session,
        terms: &Terms,
        asked: Instant,
    ) -> Result<Facts, Error> {
        // Waiting for the other writers is part of the creation. The last millisecond is for the rounding.
        let begun = terms.started_ago.saturating_add(asked.elapsed());
        let owner = session.owner();
        let facts = format!(
            "select
                exists (
                    select 1 from \"mcp_sessions_revoked\"
                    where scope = ?2 and at > {NOW} - ?4 and (everyone or principal is ?3)
                ) as revoked,
                exists (
                    select 1 from \"mcp_sessions\" where reference = ?1 and expires > {NOW}
                ) as taken,
                iif(?5, (
                    select count(*) from \"mcp_sessions\" where +scope = ?2 and expires > {NOW}
                ), 0) as total,
                iif(?6, (
                    select count(*) from \"mcp_sessions\"
                    where scope = ?2 and principal = ?3 and expires > {NOW}
                ), 0) as own"
        );
        let facts = sqlx::query_as::<_, (bool, bool, i64, i64)>(self.table.sql(&facts))
            .bind(&session.reference().as_bytes()[..])
            .bind(sql::scope(&owner.scope))
            .bind(sql::principal(owner))
            .bind(millis(begun) + 1)
            .bind(terms.total.is_some())
            .bind(terms.per_principal.is_some())
            .fetch_one(connection)
            .await;
        facts.map(|(revoked, taken, total, own)| Facts {
            revoked,
            taken,
            total: total.unsigned_abs(),
            own: own.unsigned_abs(),
        })
    }

    /// Deletes the first of a sample that may go, if there is one.
    async fn evict(
        &self,
        connection: &mut SqliteConnection,
        newcomer: &Session,
        limit: Limit,
        [unused, untouched]: [i64; 2],
    ) -> Result<Vec<SqliteRow>, Error> {
        let owner = newcomer.owner();
        // For somebody else's no principal's session is ended.
        let principal = match limit {
            Limit::PerPrincipal => sql::principal(owner),
            Limit::Total => None,
        };
        // References are evenly spread, so those that follow a new one are a fair sample.
        let sample = |around: &str| {
            format!(
                "select * from (
                    select reference, latest_touch, used from \"mcp_sessions\"
                    where reference {around} ?1 and scope = ?2 and principal is ?3 and expires > {NOW}
                    order by reference limit 64
                )"
            )
        };
        let first = format!(
            "reference = (
                select reference from ({} union all {})
                where latest_touch <= {NOW} - iif(used, ?5, ?4) order by used, latest_touch limit 1
            )",
            sample(">"),
            sample("<")
        );
        sqlx::query(self.table.sql(&end(&first, "?6")))
            .bind(&newcomer.reference().as_bytes()[..])
            .bind(sql::scope(&owner.scope))
            .bind(principal)
            .bind(unused)
            .bind(untouched)
            .bind(EndReason::Evicted.as_str())
            .fetch_all(connection)
            .await
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        session: &Session,
        terms: &Terms,
    ) -> Result<(), Error> {
        let reference = &session.reference().as_bytes()[..];
        let record = session.record();
        let client = record.client.as_ref();

        // An expired session that nobody has swept away yet is no session.
        sqlx::query(
            self.table
                .sql("delete from \"mcp_sessions\" where reference = ?1"),
        )
        .bind(reference)
        .execute(&mut *connection)
        .await?;
        // Before it, so that they are no change of it.
        if let Some(values) = record.values.to_bytes() {
            sqlx::query(self.table.sql(
                "insert into \"mcp_sessions_values\" (reference, named_values) values (?1, ?2)",
            ))
            .bind(reference)
            .bind(values)
            .execute(&mut *connection)
            .await?;
        }
        let insert = format!(
            "insert into \"mcp_sessions\" (
                reference, scope, principal, by_layer, client_name, client_version, protocol_version,
                created, latest_touch, used, expires, life_ends
            )
            values (?1, ?2, ?3, ?4, ?5, ?6, ?7, {NOW}, {NOW}, false, {NOW} + ?8, {NOW} + ?9)"
        );
        sqlx::query(self.table.sql(&insert))
            .bind(reference)
            .bind(sql::scope(&record.owner.scope))
            .bind(sql::principal(&record.owner))
            .bind(record.issuer == Issuer::Layer)
            .bind(client.map(|client| client.name.as_bytes()))
            .bind(client.map(|client| client.version.as_bytes()))
            .bind(record.protocol_version.as_deref().map(str::as_bytes))
            .bind(millis(sql::first_idle(terms)))
            .bind(terms.life.map(millis))
            .execute(&mut *connection)
            .await?;
        if let Some(params) = &record.initialize_params {
            sqlx::query(self.table.sql(
                "insert into \"mcp_sessions_params\" (reference, initialize_params) values (?1, ?2)",
            ))
            .bind(reference)
            .bind(&params[..])
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

fn reference(row: &SqliteRow) -> Result<SessionRef, Error> {
    sql::reference(row.try_get("reference")?)
}

/// What decides on a creation.
struct Facts {
    revoked: bool,
    taken: bool,
    /// How many sessions the scope has, if that is limited.
    total: u64,
    /// How many sessions the principal has in the scope, if that is limited.
    own: u64,
}

impl Facts {
    fn reached(&self, terms: &Terms) -> Option<Limit> {
        if terms
            .per_principal
            .is_some_and(|limit| self.own >= limit.get())
        {
            Some(Limit::PerPrincipal)
        } else if terms.total.is_some_and(|limit| self.total >= limit.get()) {
            Some(Limit::Total)
        } else {
            None
        }
    }
}
