// The command store is one store of a TiKV cluster for tests: it speaks TiKV's gRPC protocol, registers itself and its
// regions with a real PD, and keeps what it has committed when it is killed.
//
// It is not TiKV. Transactions are those of TiDB's unistore over badger, with the corrections that service.go and locks.go
// describe, and there is no Raft: each region has one replica, so the regions of a store that is down are not there.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pingcap/badger"
	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/lockstore"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
	"google.golang.org/grpc"
)

const (
	messageBytesMax   = 64 << 20
	lockTableBytes    = 8 << 20
	memoryTableBytes  = 32 << 20
	logFileBytes      = 64 << 20
	logFiles          = 3
	timestampLogicals = 18 // bits of a timestamp below the milliseconds
)

type options struct {
	listen, advertise, control, pd, directory string
	index, count                              int
	splits                                    string
	sync                                      bool
	tls                                       tlsFiles
	certificates                              string
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.listen, "addr", "127.0.0.1:20160", "address to listen on")
	flag.StringVar(&o.advertise, "advertise", "", "address told to PD, if it is another one")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the control port (plain HTTP): fail points, figures, splits")
	flag.StringVar(&o.pd, "pd", "127.0.0.1:2379", "address of PD")
	flag.StringVar(&o.directory, "data", "", "directory of the data")
	flag.IntVar(&o.index, "index", 0, "number of this store, from 0; counts only when the store is new")
	flag.IntVar(&o.count, "count", 1, "how many stores the cluster begins with; counts only when the store is new")
	flag.StringVar(&o.splits, "splits", "", "raw keys in hexadecimal, separated by commas, at which a new cluster is cut into regions")
	flag.BoolVar(&o.sync, "sync", true, "sync the log before a write is answered")
	flag.StringVar(&o.tls.ca, "ca", "", "certificate authority; with -cert and -key, everything but the control port is TLS on both sides")
	flag.StringVar(&o.tls.certificate, "cert", "", "certificate of this store")
	flag.StringVar(&o.tls.key, "key", "", "private key of this store")
	flag.StringVar(&o.certificates, "make-certificates", "", "only write certificates for tests into this directory")
	flag.Parse()
	if o.advertise == "" {
		o.advertise = o.listen
	}
	return o
}

func main() {
	if err := run(parseOptions()); err != nil {
		log.Fatalf("error: %v", err)
	}
}

func run(o options) error {
	if o.certificates != "" {
		return writeCertificates(o.certificates)
	}
	if o.directory == "" {
		return fmt.Errorf("-data is missing")
	}
	cuts, err := decodeKeys(o.splits)
	if err != nil {
		return fmt.Errorf("-splits: %w", err)
	}
	credentials, err := o.tls.load()
	if err != nil {
		return err
	}
	// Taken first, so that an address in use is found before anything is written.
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	controlListener, err := net.Listen("tcp", o.control)
	if err != nil {
		return err
	}
	placement, err := connectPlacement(o.pd, credentials)
	if err != nil {
		return err
	}
	bundle, safePoint, err := open(o, placement)
	if err != nil {
		return err
	}
	figures := newFigures()
	conf := config.DefaultConf
	conf.Server.StoreAddr = o.advertise
	conf.Engine.DBPath = o.directory
	// The lock table is complete before PD, and so any client, learns of this store.
	store := tikv.NewMVCCStore(&conf, bundle, o.directory, safePoint, newLockWriter(bundle, figures), placement)
	store.DeadlockDetectSvr.ChangeRole(tikv.Leader)
	// The detector of unistore dials other stores in plain text.
	store.StartDeadlockDetection(o.count > 1 && credentials == nil)
	regions, err := openRegions(placement, o, cuts)
	if err != nil {
		return err
	}
	server := &service{Server: tikv.NewServer(regions, store, tikv.NewStandAlongInnerServer(bundle)), bundle: bundle, regions: regions}
	faults := newFaults(bundle, regions)
	// Counted first, then the fail points, for single requests and for those of a stream.
	server.intercept = func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return figures.intercept(ctx, request, info, func(ctx context.Context, request any) (any, error) {
			return faults.intercept(ctx, request, info, handle)
		})
	}
	rpc := grpc.NewServer(
		serverCredentials(credentials),
		grpc.MaxRecvMsgSize(messageBytesMax),
		grpc.MaxSendMsgSize(messageBytesMax),
		grpc.UnaryInterceptor(server.intercept),
	)
	tikvpb.RegisterTikvServer(rpc, server)
	deadlock.RegisterDeadlockServer(rpc, server)
	ended := make(chan error, 2)
	go func() { ended <- rpc.Serve(listener) }()
	go func() { ended <- http.Serve(controlListener, newControl(regions, faults, figures)) }()
	go regions.report()
	go followSafePoint(placement, store)
	log.Printf("store %d is ready at %s, control port at %s", regions.store.Id, o.advertise, controlListener.Addr())

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-signals:
	}
	faults.clear("", "")
	rpc.Stop()
	server.Stop()
	return nil
}

// open opens the data, at a point in time that is later than every one that the last run has used.
func open(o options, placement *placement) (*mvcc.DBBundle, *tikv.SafePoint, error) {
	physical, logical, err := placement.GetTS(context.Background())
	if err != nil {
		return nil, nil, err
	}
	directory := filepath.Join(o.directory, "kv")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, nil, err
	}
	safePoint := &tikv.SafePoint{}
	engine := badger.DefaultOptions
	engine.Dir = directory
	engine.ValueDir = directory
	engine.ManagedTxns = true
	engine.SyncWrites = o.sync
	engine.ValueThreshold = 0
	engine.NumCompactors = 1
	engine.MaxMemTableSize = memoryTableBytes
	engine.ValueLogFileSize = logFileBytes
	engine.ValueLogMaxNumFiles = logFiles
	engine.CompactionFilterFactory = safePoint.CreateCompactionFilter
	db, err := badger.Open(engine)
	if err != nil {
		return nil, nil, err
	}
	now := uint64(physical)<<timestampLogicals + uint64(logical)
	return &mvcc.DBBundle{DB: db, LockStore: lockstore.NewMemStore(lockTableBytes), StateTS: now}, safePoint, nil
}

func decodeKeys(list string) ([][]byte, error) {
	var keys [][]byte
	for _, text := range strings.Split(list, ",") {
		if text == "" {
			continue
		}
		key, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
