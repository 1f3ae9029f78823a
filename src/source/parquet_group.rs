//! Bounds how many values the repeated columns of a row group have.
//!
//! A row is in memory as a whole, and a repeated column can have any number of values in a row. The footer has the number
//! of values of each column, which is checked before the group is read. The pages are held to that number.

use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

/// Most values of the repeated columns of a row group together.
const MAX_VALUES: u64 = 100_000_000;

/// Most values of these columns per row, on average.
const MAX_VALUES_PER_ROW: u64 = 4_000_000;

/// Checks how many values the repeated columns of a row group have by its metadata. Returns why it is not read.
pub(super) fn check_values(group: &RowGroupMetaData) -> Result<(), String> {
    let repeated = group.columns().iter().filter(|column| column.column_descr().max_rep_level() > 0);
    let values = repeated.fold(0, |sum: u64, column| {
        sum.saturating_add(u64::try_from(column.num_values()).unwrap_or(u64::MAX))
    });
    check_number(values, u64::try_from(group.num_rows()).unwrap_or(0))
}

fn check_number(values: u64, rows: u64) -> Result<(), String> {
    if values > MAX_VALUES {
        return Err(format!(
            "the lists of a row group have {values} values, and at most {MAX_VALUES} are read; write it with fewer rows in \
             each row group"
        ));
    }
    let values_per_row = values / rows.max(1);
    if values_per_row > MAX_VALUES_PER_ROW {
        return Err(format!(
            "the lists of a row have {values_per_row} values on average, and at most {MAX_VALUES_PER_ROW} are read"
        ));
    }
    Ok(())
}

/// A row group whose repeated columns have no more values than its metadata say.
pub(super) struct CheckedGroup<'a>(pub(super) Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for CheckedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> ParquetResult<Box<dyn PageReader>> {
        let pages = self.0.get_column_page_reader(index)?;
        let column = self.metadata().column(index);
        if column.column_descr().max_rep_level() == 0 {
            return Ok(pages);
        }
        let values = u64::try_from(column.num_values()).unwrap_or(0);
        Ok(Box::new(CheckedPages { pages, values }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> ParquetResult<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column, with the number of values that may follow.
struct CheckedPages {
    pages: Box<dyn PageReader>,
    values: u64,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.pages.get_next_page()?;
        match &page {
            Some(data @ (Page::DataPage { .. } | Page::DataPageV2 { .. })) => {
                let left = self.values.checked_sub(u64::from(data.num_values()));
                self.values = left.ok_or_else(|| {
                    ParquetError::General("a column has more values than its metadata say".to_owned())
                })?;
            }
            Some(Page::DictionaryPage { .. }) | None => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> ParquetResult<Option<Page>> {
        self.pages.take_deferred_dictionary()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::Encoding;

    use super::*;

    /// Returns pages of three values each, without end.
    struct EndlessPages;

    impl PageReader for EndlessPages {
        fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
            Ok(Some(Page::DataPage {
                buf: Default::default(),
                num_values: 3,
                encoding: Encoding::PLAIN,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            }))
        }

        fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
            Ok(None)
        }

        fn skip_next_page(&mut self) -> ParquetResult<()> {
            Ok(())
        }
    }

    impl Iterator for EndlessPages {
        type Item = ParquetResult<Page>;

        fn next(&mut self) -> Option<Self::Item> {
            self.get_next_page().transpose()
        }
    }

    #[test]
    fn the_number_of_values_is_bounded_in_all_and_per_row() {
        assert_eq!(check_number(MAX_VALUES, 25), Ok(()));
        assert!(check_number(MAX_VALUES + 1, 1 << 40).unwrap_err().contains("at most 100000000"));
        assert!(check_number(MAX_VALUES, 24).unwrap_err().contains("4166666 values on average"));
        assert_eq!(check_number(MAX_VALUES_PER_ROW, 0), Ok(()));
    }

    #[test]
    fn the_pages_have_no_more_values_than_the_metadata_say() {
        let mut pages = CheckedPages { pages: Box::new(EndlessPages), values: 8 };
        assert_eq!(pages.next().unwrap().unwrap().num_values(), 3);
        assert_eq!(pages.next().unwrap().unwrap().num_values(), 3);
        let error = pages.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("more values than its metadata say"), "{error}");
    }
}
