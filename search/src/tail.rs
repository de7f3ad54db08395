//! The unindexed tail: emails that came a moment ago, put into an index in memory and asked the same question, so that
//! they cannot be found otherwise than they will be.

use mail::id::AccountId;
use tantivy::Index;
use tantivy::directory::RamDirectory;

use crate::document::Document;
use crate::error::SearchError;
use crate::filter::Wanted;
use crate::query::{Hit, words as ask};
use crate::schema::Fields;

/// Sizes the table of terms; what is added may take more.
const MEMORY_BYTES: usize = 15_000_000;

/// Words in documents that are in no index. Blocks.
pub(crate) fn words(
    fields: &Fields,
    account: AccountId,
    documents: &[Document],
    wanted: &Wanted,
) -> Result<Vec<Hit>, SearchError> {
    let builder = Index::builder().schema(fields.schema()).tokenizers(Fields::tokenizers());
    let mut writer = builder.single_segment_index_writer(RamDirectory::create(), MEMORY_BYTES)?;
    for document in documents {
        writer.add_document(fields.document(account, document))?;
    }
    let index = writer.finalize()?;
    Ok(ask(&index.reader()?.searcher(), fields, account, wanted)?)
}
