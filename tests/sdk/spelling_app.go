// The same app in Go: the library's router, and beside it one that cleans paths and ignores case.
package main

import (
	"net/http"
	"os"
	"path"
	"strings"
)

func served(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-served", what)
		w.Write([]byte(what))
	}
}

func main() {
	mux := http.NewServeMux()
	charged := map[string]bool{"/chat": true, "/v1/chat/completions": true}
	for at := range charged {
		mux.HandleFunc(at, served("charged"))
	}
	mux.HandleFunc("/paid/", served("charged"))
	mux.HandleFunc("/free", served("free"))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && charged[strings.ToLower(path.Clean(r.URL.Path))] {
			served("charged")(w, r)
			return
		}
		http.NotFound(w, r)
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], mux); err != nil {
		panic(err)
	}
}
