//! Rows of a range as of a timestamp, page by page and region by region, in the streams that carry everything else.
//!
//! Who looks for messages in a thousand slots asks a thousand small questions at once: here, they travel in a few messages.

use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;

use super::encoding::Encoding;
use super::wire::kvrpcpb;
use super::{Remote, answers};
use crate::cluster::{Failure, ReadFailure};

/// Rows of the first page of a scan; each further one has twice as many, up to the limit.
const FIRST_PAGE_ROWS: usize = 128;
const PAGE_ROWS_MAX: usize = 2048;
/// While pages are larger than this, the next one has half as many rows.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How often a page is asked for again because its region was elsewhere. Then the caller decides.
const ROUNDS_MAX: u32 = 4;
/// First wait before that; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(2);

/// A part of a range, from one region.
struct Page {
    rows: Vec<(Bytes, Bytes)>,
    /// Where the region ends, if that is before the end of the range.
    border: Option<Vec<u8>>,
}

impl Remote {
    /// Rows in the order of their keys. Never waits for a lock.
    pub(super) async fn rows(
        &self,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
        let (mut start, end) = self.encoding.range(range);
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        let mut page_rows = FIRST_PAGE_ROWS;
        while rows.len() < limit && start < end {
            let asked = page_rows.min(limit - rows.len());
            let page = self.page(at, (&start, &end), asked).await?;
            let bytes = page.rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            match (page.rows.last(), page.border) {
                (Some((last, _)), _) if page.rows.len() >= asked => {
                    start = self.encoding.key(last).into();
                    start.push(0);
                }
                (_, Some(border)) => start = border,
                (_, None) => start.clone_from(&end),
            }
            rows.extend(page.rows);
            page_rows =
                if bytes > PAGE_BYTES_MAX { (page_rows / 2).max(1) } else { (page_rows * 2).min(PAGE_ROWS_MAX) };
        }
        Ok(rows)
    }

    async fn page(&self, at: Timestamp, range: (&[u8], &[u8]), limit: usize) -> Result<Page, ReadFailure> {
        let mut round = 0;
        loop {
            match self.page_of_region(at, range, limit).await {
                Ok((answer, border)) => {
                    let rows = answers::values(&self.encoding, answer.pairs, answer.error.as_ref())?;
                    return Ok(Page { rows, border });
                }
                Err(Failure::Refused(why)) => return Err(ReadFailure::Refused(why)),
                Err(failure) if round >= ROUNDS_MAX => return Err(ReadFailure::Unreachable(failure.to_string())),
                Err(_) => tokio::time::sleep(FIRST_WAIT * 2_u32.pow(round)).await,
            }
            round += 1;
        }
    }

    /// What the region in which the range begins has of it, and where that region ends.
    async fn page_of_region(
        &self,
        at: Timestamp,
        (start, end): (&[u8], &[u8]),
        limit: usize,
    ) -> Result<(kvrpcpb::ScanResponse, Option<Vec<u8>>), Failure> {
        let region = self.region_at(Encoding::at_pd_of(start)).await?;
        let (known, connection) = self.leader(region).await?;
        let border = match &known.region.end_key {
            none if none.is_empty() => None,
            border => {
                let odd = || Failure::Region("a region ends at what is no key".to_owned());
                Some(Encoding::border(border).ok_or_else(odd)?).filter(|border| border.as_slice() < end)
            }
        };
        let message = kvrpcpb::ScanRequest {
            context: Some(self.context(&known, false)),
            start_key: Bytes::copy_from_slice(start),
            end_key: Bytes::copy_from_slice(border.as_deref().unwrap_or(end)),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            version: at.0,
        };
        let answer = self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await?;
        Ok((answer, border))
    }
}
