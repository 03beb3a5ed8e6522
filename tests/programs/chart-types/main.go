// Reads what the chart renders for the Prometheus Operator and for Grafana with these projects' own types, strictly:
// a field that they don't know, or one of the wrong type, is an error.
//
// Usage: types MANIFESTS DASHBOARD
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: types MANIFESTS DASHBOARD"))
	}
	counts, err := checkManifests(os.Args[1])
	if err != nil {
		fail(err)
	}
	if err := checkDashboard(os.Args[2]); err != nil {
		fail(fmt.Errorf("%s: %w", os.Args[2], err))
	}
	for _, kind := range []string{"ServiceMonitor", "PrometheusRule"} {
		if counts[kind] == 0 {
			fail(fmt.Errorf("%s: no %s to check", os.Args[1], kind))
		}
	}
	fmt.Printf("types: %d ServiceMonitors, %d PrometheusRules and the dashboard are as their projects want them\n",
		counts["ServiceMonitor"], counts["PrometheusRule"])
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "types:", err)
	os.Exit(1)
}

func checkManifests(path string) (map[string]int, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	counts := map[string]int{}
	documents := yaml.NewDocumentDecoder(file)
	defer documents.Close()
	buffer := make([]byte, 4<<20)
	for {
		size, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return counts, nil
		}
		if err != nil {
			return nil, err
		}
		var head struct {
			Kind string `json:"kind"`
		}
		if err := strict.Unmarshal(buffer[:size], &head); err != nil {
			return nil, err
		}
		var into any
		switch head.Kind {
		case "ServiceMonitor":
			into = &monitoring.ServiceMonitor{}
		case "PrometheusRule":
			into = &monitoring.PrometheusRule{}
		default:
			continue
		}
		if err := strict.UnmarshalStrict(buffer[:size], into); err != nil {
			return nil, fmt.Errorf("%s: %w", head.Kind, err)
		}
		counts[head.Kind]++
	}
}

func checkDashboard(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var board dashboard.Dashboard
	if err := some(board.UnmarshalJSONStrict(text)); err != nil {
		return err
	}
	if err := some(board.Validate()); err != nil {
		return err
	}
	if len(board.Panels) == 0 {
		return errors.New("no panels")
	}
	return nil
}

// The generated code returns an empty list of errors where it finds none.
func some(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}
