// The same app in Go: the library's router, and beside it one that cleans paths and ignores case.
package main

import (
	"bytes"
	"encoding/json"
	"io"
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

func ascii(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// Every model that a request names to a Go app: in its path, its query, its form, or its JSON whatever the label.
func models(w http.ResponseWriter, r *http.Request) {
	found := []string{}
	segments := strings.Split(r.URL.Path, "/")
	for at, segment := range segments[:len(segments)-1] {
		if segment == "deployments" || segment == "engines" || segment == "models" {
			model, _, _ := strings.Cut(segments[at+1], ":")
			found = append(found, model)
		}
	}
	raw, _ := io.ReadAll(r.Body)
	type named struct {
		Model string `json:"model"`
	}
	one, many := named{}, []named{}
	if json.NewDecoder(bytes.NewReader(raw)).Decode(&one) == nil && one.Model != "" {
		found = append(found, one.Model)
	}
	if json.Unmarshal(raw, &many) == nil {
		for _, each := range many {
			found = append(found, each.Model)
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	r.ParseMultipartForm(1 << 20)
	found = append(found, r.Form["model"]...)
	answer, _ := json.Marshal(found)
	w.Header().Set("x-models", strings.Map(ascii, string(answer)))
	w.Write(answer)
}

func main() {
	mux := http.NewServeMux()
	charged := map[string]bool{"/chat": true, "/v1/chat/completions": true}
	for at := range charged {
		mux.HandleFunc(at, served("charged"))
	}
	mux.HandleFunc("/read/", models)
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
