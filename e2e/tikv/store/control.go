package main

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
)

// newControl is the control port. It is for tests on the same machine: plain HTTP, no one is asked who he is.
//
//	GET    /failpoints                     those that are set, with how often they met a request and fired
//	POST   /failpoints                     sets one: {"name", "times", "percent", "milliseconds", "prefix"}
//	DELETE /failpoints?name=&prefix=       takes away one; without a name, all; what it held goes on
//	GET    /failpoints/names               the names there are
//	GET    /figures                        requests, batches and bytes written, also as /stats
//	GET    /regions                        the regions of this store, and whether PD knows their leader
//	POST   /split                          splits a region of this store: {"key"}, raw, in hexadecimal
func newControl(regions *regions, faults *faults, figures *figures) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /failpoints", func(w http.ResponseWriter, _ *http.Request) { respond(w, faults.list()) })
	mux.HandleFunc("GET /failpoints/names", func(w http.ResponseWriter, _ *http.Request) { respond(w, effectNames()) })
	mux.HandleFunc("POST /failpoints", func(w http.ResponseWriter, r *http.Request) {
		var wanted setting
		if read(w, r, &wanted) && accepted(w, faults.set(wanted)) {
			respond(w, faults.list())
		}
	})
	mux.HandleFunc("DELETE /failpoints", func(w http.ResponseWriter, r *http.Request) {
		respond(w, faults.clear(r.FormValue("name"), r.FormValue("prefix")))
	})
	numbers := func(w http.ResponseWriter, _ *http.Request) { respond(w, figures.now()) }
	mux.HandleFunc("GET /figures", numbers)
	mux.HandleFunc("GET /stats", numbers)
	mux.HandleFunc("GET /regions", func(w http.ResponseWriter, r *http.Request) { respond(w, regionsNow(r, regions)) })
	mux.HandleFunc("POST /split", func(w http.ResponseWriter, r *http.Request) {
		var wanted struct {
			Key string `json:"key"`
		}
		if !read(w, r, &wanted) {
			return
		}
		key, err := hex.DecodeString(wanted.Key)
		if err == nil {
			_, err = regions.splitAt(key)
		}
		if accepted(w, err) {
			respond(w, regionsNow(r, regions))
		}
	})
	return mux
}

type regionNow struct {
	ID      uint64 `json:"id"`
	Start   string `json:"start"` // raw, in hexadecimal; empty at the ends of the key space
	End     string `json:"end"`
	Version uint64 `json:"version"`
	Known   bool   `json:"known"` // PD knows the leader
}

type storeNow struct {
	Store   uint64      `json:"store"`
	Address string      `json:"address"`
	Regions []regionNow `json:"regions"`
}

func regionsNow(r *http.Request, regions *regions) storeNow {
	now := storeNow{Store: regions.store.Id, Address: regions.store.Address, Regions: []regionNow{}}
	for _, region := range regions.list() {
		known, _ := regions.placement.leads(r.Context(), region.meta.Id)
		// Bounds were decoded once already, when the region was made.
		start, _ := decodeBound(region.meta.StartKey)
		end, _ := decodeBound(region.meta.EndKey)
		now.Regions = append(now.Regions, regionNow{ID: region.meta.Id, Start: hex.EncodeToString(start),
			End: hex.EncodeToString(end), Version: region.meta.RegionEpoch.Version, Known: known})
	}
	return now
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	return accepted(w, decoder.Decode(into))
}

func accepted(w http.ResponseWriter, err error) bool {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func respond(w http.ResponseWriter, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}
