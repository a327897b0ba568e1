// Command manifests reads rendered Kubernetes manifests from standard input and decodes each as strictly as an API
// server with field validation does: an unknown or repeated field, or a value of the wrong type, is an error. Kinds
// that are not Kubernetes' own must be named as arguments, and are only counted.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	sigsyaml "sigs.k8s.io/yaml"
)

func main() {
	checked, skipped, err := check(os.Stdin, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d objects are valid, %d of other kinds were not checked\n", checked, skipped)
}

func check(in io.Reader, otherKinds []string) (checked, skipped int, err error) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(in))
	var problems []error
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return checked, skipped, err
		}
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := sigsyaml.Unmarshal(document, &object); err != nil {
			return checked, skipped, err
		}
		if object.Kind == "" {
			continue // only comments
		}
		_, _, err = decoder.Decode(document, nil, nil)
		switch {
		case err == nil:
			checked++
		case runtime.IsNotRegisteredError(err) && slices.Contains(otherKinds, object.Kind):
			skipped++
		default:
			problems = append(problems, fmt.Errorf("%s %s: %w", object.Kind, object.Metadata.Name, err))
		}
	}
	if checked == 0 {
		problems = append(problems, errors.New("no object was read"))
	}
	return checked, skipped, errors.Join(problems...)
}
