package main

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pingcap/badger"
	"github.com/pingcap/badger/y"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
)

// lockRows is where locks are stored. A prewritten value is nowhere but in its lock, and unistore has locks in memory alone:
// a process that dies between the commit of a primary and that of its secondaries would lose what was acknowledged.
//
// They lie before all keys of users. unistore only seeks forward; behind the users' keys, it would wade through the
// tombstones of removed locks at every read of a last key.
var lockRows = []byte("\x00lock")

// lockWriter implements mvcc.DBWriter: rows and locks of one command become durable together, and then visible.
type lockWriter struct {
	bundle  *mvcc.DBBundle
	figures *figures
	version atomic.Uint64 // of the last lock row
	table   sync.Mutex    // the table of locks takes one writer at a time
}

func newLockWriter(bundle *mvcc.DBBundle, figures *figures) *lockWriter {
	return &lockWriter{bundle: bundle, figures: figures}
}

// Open fills the table of locks from what the last run left.
func (w *lockWriter) Open() {
	latest := w.bundle.StateTS
	err := w.bundle.DB.View(func(tx *badger.Txn) error {
		rows := tx.NewIterator(badger.DefaultIteratorOptions)
		defer rows.Close()
		for rows.Seek(lockRows); rows.ValidForPrefix(lockRows); rows.Next() {
			row := rows.Item()
			latest = max(latest, row.Version())
			lock, err := row.ValueCopy(nil)
			if err != nil {
				return err
			}
			if len(lock) > 0 {
				w.bundle.LockStore.Put(row.KeyCopy(nil)[len(lockRows):], lock)
			}
		}
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("cannot read the locks of the last run: %v", err)) // unistore gives no way to refuse
	}
	w.version.Store(latest)
}

func (w *lockWriter) Close() {}

func (w *lockWriter) NewWriteBatch(start, commit uint64, _ *kvrpcpb.Context) mvcc.WriteBatch {
	return &batch{writer: w, start: start, commit: commit}
}

// lockChange sets a lock, or removes it where there is none.
type lockChange struct{ key, lock []byte }

// batch collects what one command writes for one transaction.
type batch struct {
	writer        *lockWriter
	start, commit uint64
	rows          []*badger.Entry
	locks         []lockChange
}

func (b *batch) row(key y.Key, value, meta []byte) {
	b.rows = append(b.rows, &badger.Entry{Key: key, Value: value, UserMeta: meta})
}

// status is the row that says how the transaction ended at this key, where no version of the key says so.
func (b *batch) status(key []byte) y.Key {
	return y.KeyWithTs(mvcc.EncodeExtraTxnStatusKey(key, b.start), b.start)
}

func (b *batch) lock(key []byte, lock *mvcc.Lock) {
	b.locks = append(b.locks, lockChange{bytes.Clone(key), lock.MarshalBinary()})
}

func (b *batch) unlock(key []byte) { b.locks = append(b.locks, lockChange{key: bytes.Clone(key)}) }

func (b *batch) Prewrite(key []byte, lock *mvcc.Lock)        { b.lock(key, lock) }
func (b *batch) PessimisticLock(key []byte, lock *mvcc.Lock) { b.lock(key, lock) }
func (b *batch) PessimisticRollback(key []byte)              { b.unlock(key) }

func (b *batch) Rollback(key []byte, locked bool) {
	b.row(b.status(key), nil, mvcc.NewDBUserMeta(b.start, 0))
	if locked {
		b.unlock(key)
	}
}

func (b *batch) Commit(key []byte, lock *mvcc.Lock) {
	meta := mvcc.NewDBUserMeta(b.start, b.commit)
	switch kvrpcpb.Op(lock.Op) {
	case kvrpcpb.Op_PessimisticLock: // it has written nothing
	case kvrpcpb.Op_Lock:
		// TiKV writes a record here, so that somebody who writes this key at the same time has a conflict. unistore writes
		// none; the value of before, written again, does the same.
		b.row(y.KeyWithTs(bytes.Clone(key), b.commit), b.writer.current(key), meta)
		if bytes.Equal(key, lock.Primary) {
			b.row(b.status(key), nil, meta)
		}
	default:
		b.row(y.KeyWithTs(bytes.Clone(key), b.commit), lock.Value, meta)
	}
	b.unlock(key)
}

// current is the latest value of a key, nil where there is none.
func (w *lockWriter) current(key []byte) []byte {
	tx := w.bundle.DB.NewTransaction(false)
	defer tx.Discard()
	row, err := tx.Get(key)
	if err != nil {
		return nil
	}
	value, err := row.ValueCopy(nil)
	if err != nil {
		return nil
	}
	return value
}

// Write returns when the batch is on disk and visible. badger itself joins batches that come at the same time in one sync.
//
// Two batches never go into one transaction of badger. When it replays its log, it gives all rows of a transaction the
// meta data of the last one (it keeps slices of a buffer that it reads into again), which would mix up the timestamps of
// two transactions of users. Within a batch they are all the same.
func (w *lockWriter) Write(written mvcc.WriteBatch) error {
	b, ours := written.(*batch)
	if !ours {
		return fmt.Errorf("a batch of somebody else: %T", written)
	}
	if len(b.rows) == 0 && len(b.locks) == 0 {
		return nil
	}
	rows := b.rows
	version := w.version.Add(1)
	for _, change := range b.locks {
		key := append(bytes.Clone(lockRows), change.key...)
		rows = append(rows, &badger.Entry{Key: y.KeyWithTs(key, version), Value: change.lock})
	}
	err := w.bundle.DB.Update(func(tx *badger.Txn) error {
		for _, row := range rows {
			if len(row.UserMeta) == 0 && len(row.Value) == 0 {
				row.SetDelete()
			}
			if err := tx.SetEntry(row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.figures.wrote(rows)
	w.show(b.locks)
	return nil
}

func (w *lockWriter) show(changes []lockChange) {
	w.table.Lock()
	defer w.table.Unlock()
	hint := new(lockstore.Hint)
	for _, change := range changes {
		if change.lock == nil {
			w.bundle.LockStore.DeleteWithHint(change.key, hint)
		} else {
			w.bundle.LockStore.PutWithHint(change.key, change.lock, hint)
		}
	}
}

// DeleteRange deletes every version of the keys in [start, end).
func (w *lockWriter) DeleteRange(start, end []byte, _ mvcc.LatchHandle) error {
	b := &batch{writer: w}
	err := w.bundle.DB.View(func(tx *badger.Txn) error {
		rows := tx.NewIterator(badger.DefaultIteratorOptions)
		defer rows.Close()
		for rows.Seek(start); rows.Valid() && bytes.Compare(rows.Item().Key(), end) < 0; rows.Next() {
			b.row(y.KeyWithTs(rows.Item().KeyCopy(nil), rows.Item().Version()+1), nil, nil)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Write(b)
}
