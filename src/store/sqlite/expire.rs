//! The end of a session whose time is up, decided where nobody else writes.

use sqlx::{Connection as _, Error, Sqlite, Transaction};

use super::{Inner, statements};
use crate::{protocol::SessionRef, store::sql::Stored};

impl Inner {
    /// The session, if its time is not up. Otherwise removes it, if it is still there.
    pub(super) async fn expire(&self, reference: &SessionRef) -> Result<Option<Stored>, Error> {
        // A look takes no lock. What it finds is live; what it does not find may be in the hands of a touch.
        let found = sqlx::query_as::<_, Stored>(self.load.clone())
            .bind(&reference.as_bytes()[..])
            .fetch_optional(self.readers.pool())
            .await?;
        if found.is_some() {
            return Ok(found);
        }
        let mut connection = self.writer.pool().acquire().await?;
        // Waits here until nobody else writes: a reader would see the row as it was before a touch under way.
        let transaction = connection.begin_with("begin immediate").await?;
        let left = self.left(transaction, reference).await;
        if left.is_err() {
            // As in a creation: SQLite may have rolled back by itself, of which `sqlx` knows nothing.
            connection.close_on_drop();
        }
        left
    }

    async fn left(
        &self,
        mut transaction: Transaction<'_, Sqlite>,
        reference: &SessionRef,
    ) -> Result<Option<Stored>, Error> {
        let read = self.table.sql(&statements::read());
        let stored = sqlx::query_as::<_, Stored>(read)
            .bind(&reference.as_bytes()[..])
            .fetch_optional(&mut *transaction)
            .await?;
        if stored.as_ref().is_none_or(|stored| !stored.is_over()) {
            return Ok(stored);
        }
        let remove = "delete from \"mcp_sessions\" where reference = ?1";
        sqlx::query(self.table.sql(remove))
            .bind(&reference.as_bytes()[..])
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(None)
    }
}
