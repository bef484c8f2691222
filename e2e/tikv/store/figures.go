package main

import (
	"bufio"
	"context"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/pingcap/badger"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// logWritesMetric is badger's own count.
const logWritesMetric = "badger_num_writes"

// figures count what the process has done since it was started.
type figures struct {
	mutex    sync.Mutex
	requests map[string]uint64
	failed   map[string]uint64
	batches  uint64
	bytes    uint64
}

func newFigures() *figures {
	return &figures{requests: map[string]uint64{}, failed: map[string]uint64{}}
}

// figuresNow is what the control port answers.
type figuresNow struct {
	// Requests that came, by kind, as in "KvPrewrite".
	Requests map[string]uint64 `json:"requests"`
	// Failed are those that were answered with an error of the transport.
	Failed map[string]uint64 `json:"failed"`
	// Batches of rows that were written, each durable before its answer.
	Batches uint64 `json:"batches"`
	// BatchBytes are keys and values of these rows.
	BatchBytes uint64 `json:"batch_bytes"`
	// LogWrites and, where they are synced, syncs of badger's log: it joins batches that come at the same time.
	LogWrites uint64 `json:"log_writes"`
	// DiskBytes are all bytes that the process gave the operating system to write to a disk; 0 where that is not known.
	DiskBytes uint64 `json:"disk_bytes"`
}

func (f *figures) now() figuresNow {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	now := figuresNow{Requests: map[string]uint64{}, Failed: map[string]uint64{}, Batches: f.batches, BatchBytes: f.bytes,
		LogWrites: logWrites(), DiskBytes: diskBytes()}
	for kind, count := range f.requests {
		now.Requests[kind] = count
	}
	for kind, count := range f.failed {
		now.Failed[kind] = count
	}
	return now
}

func (f *figures) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	response, err := handle(ctx, request)
	kind := path.Base(info.FullMethod)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.requests[kind]++
	if err != nil {
		f.failed[kind]++
	}
	return response, err
}

func (f *figures) wrote(rows []*badger.Entry) {
	var bytes uint64
	for _, row := range rows {
		bytes += uint64(len(row.Key.UserKey) + len(row.Value) + len(row.UserMeta))
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.batches++
	f.bytes += bytes
}

func logWrites() uint64 {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return 0
	}
	var count float64
	for _, family := range families {
		if family.GetName() == logWritesMetric {
			for _, metric := range family.GetMetric() {
				count += metric.GetCounter().GetValue()
			}
		}
	}
	return uint64(count)
}

func diskBytes() uint64 {
	file, err := os.Open("/proc/self/io")
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), "write_bytes: "); found {
			count, _ := strconv.ParseUint(value, 10, 64)
			return count
		}
	}
	return 0
}
