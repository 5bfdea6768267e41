//! Sweeping, which is for the disk alone.

use std::time::Duration;

use super::{SqliteStore, errors::failed, statements::NOW};
use crate::store::{StoreError, sql};

impl SqliteStore {
    /// Deletes up to a thousand expired sessions and says how many it found. They are absent without that; it
    /// is for the disk.
    ///
    /// # Errors
    ///
    /// When the file is locked, full or read-only.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let pool = self.0.writer.pool();
        let swept = async {
            let old = format!(
                "delete from \"mcp_sessions\" where reference in (
                    select reference from \"mcp_sessions\" where expires <= {NOW} limit ?1
                )"
            );
            let old = sqlx::query(self.0.table.sql(&old)).bind(sql::SWEPT_AT_ONCE);
            let swept = old.execute(pool).await?.rows_affected();
            let marks =
                format!("delete from \"mcp_sessions_revoked\" where at < {NOW} - 60 * 60 * 1000");
            let marks = sqlx::query(self.0.table.sql(&marks));
            marks.execute(pool).await.map(|_| swept)
        };
        swept.await.map_err(failed("sweep expired sessions"))
    }

    /// Sweeps now and then, and goes on after errors. Spawn it; it ends when the pool is closed.
    pub async fn keep_swept(self, every: Duration) {
        let sweep = || {
            let store = self.clone();
            async move { store.sweep().await }
        };
        sql::keep_swept(self.0.writer.pool().clone(), every, sweep).await;
    }
}
